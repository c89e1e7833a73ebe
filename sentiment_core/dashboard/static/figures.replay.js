// A training run replayed: loss above validation accuracy over reviews seen (logarithmic, 0 at the left), and under them
// the validation reviews as mirrored histograms, all at one play head. value: as `replay` in figures/training.py makes
// it, with the bins of `figs.mirror`, as JSON text; a run's `train` and `checks` are in the order of their `examples`, reviews seen.
figs.replay = (element, props, watch) => {
  const [button, slider, output, svg, canvas] = element.querySelectorAll('button, input, output, svg, canvas');
  const left = 64, upper = 14, middle = 168;
  let value = {}, head = 1, stop = () => {}, right = 0, bottom = 0, zero = 1, last = 1;   // zero: so many reviews are as good as none
  const share = (e) => Math.max(0, Math.log(e / zero) / Math.log(last / zero));
  const seen = (u) => u && zero * (last / zero) ** u;
  const across = (u) => left + u * (right - left), x = (e) => across(share(e));
  const between = (points, e) => {   // tells of what is read from a point how large it is at e reviews
    const i = points.findIndex(({examples}) => examples >= e), b = points.at(i), a = points[i - 1] ?? b;
    const way = a === b ? 0 : (share(e) - share(a.examples)) / (share(b.examples) - share(a.examples));
    return (read) => read(a) + way * (read(b) - read(a));
  };
  const axis = (name, [low, high], [top, end], by, ticks, form) => {   // returns where a value lies
    const y = (value) => end - (by(Math.max(value, low)) - by(low)) / (by(high) - by(low)) * (end - top);
    const half = (top + end) / 2;
    figs.make(svg, 'text', {x: 11, y: half, class: 'middle', transform: `rotate(-90 11 ${half})`}, name);
    for (const tick of ticks.filter((value) => value >= low && value <= high)) {
      figs.make(svg, 'line', {x1: left, x2: right, y1: y(tick), y2: y(tick), class: 'grid'});
      figs.make(svg, 'text', {x: left - 8, y: y(tick) + 4, class: 'end'}, form(tick));
    }
    return y;
  };
  const axes = ({noun, reviews: [first], loss, accuracy}) => {
    for (const e of [0, ...Array.from({length: 9}, (_, i) => 10 ** i).filter((e) => e >= first && e <= last)]) {
      figs.make(svg, 'line', {x1: x(e), x2: x(e), y1: upper, y2: bottom, class: 'grid'});
      figs.make(svg, 'text', {x: x(e), y: bottom + 18, class: 'middle'}, figs.count(e));
    }
    figs.make(svg, 'text', {x: across(0.5), y: bottom + 38, class: 'middle'}, `Number of ${noun} seen (logarithmic)`);
    const ticks = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20];
    return [axis('Loss (log)', loss, [upper, middle], Math.log, ticks, String),
      axis('Accuracy', accuracy, [bottom - 96, bottom], Number, [0, 0.25, 0.5, 0.75, 1], figs.percent)];
  };
  const curves = ({name, color, dash, train, checks}, i, lossAt, accuracyAt) => {
    const run = figs.make(svg, 'g', {style: `color:var(--q-${color});stroke-dasharray:${dash}`}), end = checks.at(-1);
    const line = (points, key, y, look) => figs.make(run, 'path', {class: look, d: points.map((one, i) =>
      `${i && one.joined !== false ? 'L' : 'M'}${x(one.examples).toFixed(1)},${y(one[key]).toFixed(1)}`).join('')});
    line(train, 'loss', lossAt, 'raw');
    line(train, 'smooth', lossAt, 'smooth');
    line(checks, 'accuracy', accuracyAt, 'checks');
    for (const check of checks) for (const y of [lossAt(check.loss), accuracyAt(check.accuracy)]) {
      figs.make(run, 'path', {d: `M${x(check.examples)},${y - 5}l5,5l-5,5l-5,-5z`, class: 'mark'});
    }
    const y = middle + 24 + 20 * i, words = end ? `${name} ${figs.percent(end.accuracy, 1)}` : name;   // above the curves
    const label = figs.make(run, 'text', {x: right - 8, y, class: 'end name'}, words);
    for (let old = name; label.getComputedTextLength() > right - 52 && /, | \+ /.test(old);)  // a phone's room
      label.textContent = label.textContent.replace(old, old = old.replace(/(.*)(, | \+ ).*/, '$1'));
    figs.make(run, 'path', {class: 'smooth', d: `M${right - label.getComputedTextLength() - 42},${y - 4}h26`});
  };
  const move = (u) => {
    const {runs: [run] = [], top, bins} = value;
    if (!run || !right) return;
    head = u;
    const e = Math.min(last, seen(u) * 1.000001), check = run.checks.findLast((one) => one.examples <= e);
    const clock = between([...run.train, ...run.checks].sort((a, b) => a.examples - b.examples), e);
    const words = [`${figs.count(e)} ${value.noun} seen`, `${clock((one) => one.seconds).toFixed(1)}\u202fs of training`];
    if (run.train.length) words.push(`training loss ${between(run.train, e)((one) => one.smooth).toFixed(2)}`);
    if (check) words.push(`validation accuracy ${figs.percent(check.accuracy, 1)} at step ${figs.count(check.step)}`);
    output.textContent = words.join(' · ');
    slider.value = 1000 * u; slider.setAttribute('aria-valuetext', words.join(', '));
    svg.querySelector('.head').setAttribute('transform', `translate(${across(u)} 0)`);
    svg.querySelector('.veil').setAttribute('x', across(u) + 6);
    canvas.hidden = !top;
    if (!top) return;
    const at = between(run.checks, e), bars = (label) => (_, bin) => at((one) => one.counts[label][bin]);
    const counts = [0, 1].map((label) => Array.from({length: bins}, bars(label)));
    figs.mirror(canvas, {...value, counts, threshold: 50});
  };
  const draw = () => {
    const {runs, reviews} = value;
    right = runs ? Math.max(0, svg.clientWidth - 12) : 0;
    if (!right) return;
    last = reviews[1]; zero = reviews[0] * (reviews[0] / last) ** 0.064;
    bottom = middle + 130 + 20 * (runs.length - 1);
    svg.replaceChildren(); svg.style.height = `${bottom + 46}px`;
    const at = axes(value);
    runs.forEach((run, i) => curves(run, i, ...at));
    figs.make(svg, 'rect', {class: 'veil', y: 0, height: bottom + 2, width: right});
    figs.make(svg, 'line', {class: 'head', x1: 0, x2: 0, y1: 4, y2: bottom});
    move(head);
  };
  const halt = () => { stop(); button.textContent = '▶ Play'; };
  const play = () => { button.textContent = '■ Stop'; stop = figs.animate(6, move, halt); };
  button.addEventListener('click', () => (button.textContent === '■ Stop' ? halt() : play()));
  slider.addEventListener('input', () => { halt(); move(slider.value / 1000); });
  const read = () => { value = JSON.parse(props.value || '{}'); draw(); };
  watch(['value'], read); read();
  new ResizeObserver(draw).observe(svg);
  new MutationObserver(() => move(head)).observe(document.body, {attributeFilter: ['class']});
};
