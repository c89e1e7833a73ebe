// The reading trace: rows {text, base, fine} (probabilities or null), joined downwards beside the clauses
figs.trace = (element, props, watch) => {
  const [title, frame, svg, list, note] = ['h3', '.frame', 'svg', 'ol', 'p'].map((part) => element.querySelector(part));
  const MOVE = 0.05;  // a smaller step is never called a move: number formats of a CPU differ by as much
  const CAPTION = 'P(positive) if the review ended there: squares are the base model, circles the fine-tuned. Steps of '
    + `${100 * MOVE} points or more are tinted: solid line towards positive, dashed line towards negative. `
    + 'Nothing is approximated; the last row is the answer.';
  let drawn = '';
  // Measures the rows and draws beside them; whether there is anything to be seen
  const tracks = () => {
    const rows = [...list.children], {offsetLeft: left, offsetWidth: width} = list.querySelector('.track') ?? {};
    const height = list.offsetTop + list.offsetHeight, x = (p) => 8 + p * (width - 16);
    svg.replaceChildren();
    if (!width) return false;
    Object.assign(svg.style, {left: `${left}px`, width: `${width}px`, height: `${height}px`});
    for (const p of [0, 0.5, 1]) figs.grid(svg, p, {x1: x(p), x2: x(p), y1: 4, y2: height - 4});
    for (const actor of ['base', 'fine']) {
      const known = rows.map((li, i) => [props.value.rows[i][actor], li.offsetTop + li.offsetHeight / 2]);
      figs.joined(svg, known.filter(([p]) => p != null).map(([p, y]) => [x(p), y, actor]), actor, 4.75);
    }
    return true;
  };
  const draw = () => {
    const {rows = [], title: finding = ''} = props.value ?? {};
    frame.hidden = !rows.length;
    title.textContent = finding; note.textContent = rows.length ? CAPTION : ''; list.replaceChildren();
    rows.forEach(({text, base, fine}, i) => {
      const move = i && fine != null ? fine - rows[i - 1].fine : 0, way = move > 0 ? 'up' : 'down';
      const tint = `--move:${Math.min(1, 2 * Math.abs(move))}`, said = [['■ base', base], ['● fine-tuned', fine]];
      const li = figs.make(list, 'li', {tabindex: 0, class: Math.abs(move) < MOVE ? '' : way, style: tint});
      figs.make(li, 'span', {class: 'clause', dir: 'auto'}, text);
      figs.make(li, 'span', {class: 'track'});
      const known = said.filter(([, p]) => p != null).map(([name, p]) => `${name} ${figs.percent(p)}`);
      figs.make(li, 'span', {class: 'said'}, known.join('   '));
    });
    const review = rows.map((row) => row.text).join('');
    if (!tracks() || review === drawn) return;
    drawn = review;
    if (!figs.still()) svg.animate({clipPath: ['inset(0 0 100% 0)', 'inset(0)']}, 800);
  };
  watch(['value'], draw); draw();
  new ResizeObserver(tracks).observe(element);
};
