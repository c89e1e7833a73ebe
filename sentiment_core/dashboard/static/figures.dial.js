// The dial: P(positive) over the share of fine-tuning, `curve` of probabilities or null; the slider reads its points
figs.dial = (element, props, watch, turn) => {
  const [title, svg, label, slider, said, button, note] = ['h3', 'svg', 'label', 'input', 'output', 'button', 'p']
    .map((tag) => element.querySelector(tag));
  const draw = () => {
    const {curve = [], title: finding = '', note: sentence = '', busy} = props.value ?? {};
    const last = curve.length - 1, known = curve.indexOf(null) < 0, at = Math.round(slider.value / 100 * last);
    const x = (i) => 44 + i * 300 / last, y = (p) => 122 - 112 * p;
    element.querySelector('.dial').hidden = last < 1;
    title.textContent = finding; note.textContent = sentence; svg.replaceChildren();
    label.hidden = said.hidden = !known; button.hidden = known; button.disabled = Boolean(busy);
    if (last < 1) return;
    for (const p of [0, 0.5, 1]) {
      figs.make(svg, 'line', {x1: 44, x2: 344, y1: y(p), y2: y(p), class: p === 0.5 ? 'grid half' : 'grid'});
      figs.make(svg, 'text', {x: 36, y: y(p) + 4, 'text-anchor': 'end'}, figs.percent(p));
    }
    for (const i of [0, last]) figs.make(svg, 'text', {x: x(i), y: 144, 'text-anchor': i ? 'end' : 'start'}, i ? 'fine-tuned' : 'base');
    if (known) figs.make(svg, 'line', {x1: x(at), x2: x(at), y1: 4, y2: 128, class: 'pin'});
    const joined = known ? curve : curve.slice(0, curve.indexOf(null));
    figs.make(svg, 'polyline', {points: joined.map((p, i) => `${x(i)},${y(p)}`).join(' '), class: 'path'});
    curve.forEach((p, i) => {
      if (p == null) return;
      if (i) figs.make(svg, 'circle', {cx: x(i), cy: y(p), r: i === last ? 6 : 4, class: i === last ? 'mark fine' : 'mark'});
      else figs.make(svg, 'rect', {x: x(i) - 5, y: y(p) - 5, width: 10, height: 10, class: 'mark base'});
    });
    if (known) said.textContent = `At ${figs.percent(at / last)}: ${figs.percent(curve[at])} Positive`;
    slider.setAttribute('aria-valuetext', said.textContent);
  };
  slider.addEventListener('input', draw);
  button.addEventListener('click', turn);
  watch(['value'], draw); draw();
};
