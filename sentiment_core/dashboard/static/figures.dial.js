// The dial: P(positive) over the share of fine-tuning, `curve` of probabilities or null; the slider reads its points.
// It shows the dial of what the Live tab shows, or its own value while that is of the same text and ends.
figs.bent = (curve) => {
  const percent = (p) => `${(100 * p).toFixed(0)} %`;
  const word = figs.WORDS[figs.called(curve.at(-1))], share = (i) => i / (curve.length - 1);
  const turns = curve.flatMap((p, i) => {
    const q = curve[i + 1];
    return q === undefined || figs.called(p) === figs.called(q) ? [] : [share(i) + share(1) * (0.5 - p) / (q - p)];
  });
  if (turns.length === 1) return `The answer turns to ${word} at about ${percent(turns[0])} of the fine-tuning`;
  if (turns.length) return `The answer turns ${turns.length} times on the way to ${word}`;
  return `It stays ${word} all the way, between ${percent(Math.min(...curve))} and ${percent(Math.max(...curve))} Positive`;
};
figs.dial = (element, props, watch, trigger) => {
  const parts = ['.dial', 'h3', 'svg', 'label', 'input', 'output', 'button', 'p', 'p + p'];
  const [dial, title, svg, label, slider, said, button, note, caption] = parts.map((part) => element.querySelector(part));
  const key = ({text, curve}) => JSON.stringify([text, curve[0], curve.at(-1)]);
  const draw = () => {
    const given = figs.at.view?.dial;
    dial.hidden = !given;
    if (!given) return;
    const {curve, busy, note: told} = key(props.value) === key(given) ? props.value : given;
    const last = curve.length - 1, known = !curve.includes(null), at = Math.round(slider.value / 100 * last);
    const x = (i) => 44 + i * 300 / last, y = (p) => 122 - 112 * p;
    title.textContent = known ? figs.bent(curve) : 'How much fine-tuning does it take?'; svg.replaceChildren();
    note.textContent = figs.worded(told ?? (known ? '' : busy ? 'Computing…' : 'Four more answers of this review.'));
    label.hidden = said.hidden = caption.hidden = !known; button.hidden = known; button.disabled = busy;
    for (const p of [0, 0.5, 1]) {
      figs.grid(svg, p, {x1: 44, x2: 344, y1: y(p), y2: y(p)});
      figs.make(svg, 'text', {x: 36, y: y(p) + 4, 'text-anchor': 'end'}, figs.percent(p));
    }
    figs.make(svg, 'text', {x: x(0), y: 144}, 'base');
    figs.make(svg, 'text', {x: x(last), y: 144, 'text-anchor': 'end'}, 'fine-tuned');
    if (known) figs.make(svg, 'line', {x1: x(at), x2: x(at), y1: 4, y2: 128, class: 'pin'});
    const actors = {0: 'base', [last]: 'fine'}, points = curve.map((p, i) => [x(i), y(p), actors[i] ?? '']);
    figs.joined(svg, points.filter((_, i) => curve[i] !== null), known ? '' : 'open', 5);
    said.textContent = known ? `At ${figs.percent(at / last)}: ${figs.percent(curve[at])} Positive` : '';
    slider.setAttribute('aria-valuetext', said.textContent);
  };
  slider.addEventListener('input', draw);
  button.addEventListener('click', () => figs.here({turn: figs.at.text}) || trigger('turn'));
  watch(['value'], draw); figs.on(draw, 'view');
};
