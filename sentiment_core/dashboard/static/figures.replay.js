// A training run replayed: loss above validation accuracy over reviews seen (logarithmic, 0 at the left), and under them
// the validation reviews as mirrored histograms, all at one play head. value: {runs: [{name, color, dash, train:
// [[examples, seconds, loss, smooth] …], checks: [{step, examples, seconds, joined, loss, accuracy, counts} …]} …], edge, bins, top}
figs.replay = (element, props, watch) => {
  const part = (selector) => element.querySelector(selector), svg = part('svg'), canvas = part('canvas');
  const button = part('button'), slider = part('input'), output = part('output');
  const left = 64, start = 0.06, loss = [14, 168], right = [200, 296], seconds = 6;
  const dashes = {solid: '', dash: '8 4', dot: '2 3', dashdot: '8 3 2 3'};
  let head = 1, stop = null, width = 0, first = 1, last = 1;
  const share = (e) => (e < first ? start * e / first : start + (1 - start) * Math.log(e / first) / Math.log(last / first));
  const seen = (u) => (u < start ? first * u / start : first * (last / first) ** ((u - start) / (1 - start)));
  const across = (u) => left + u * (width - left - 12), x = (e) => across(share(e));
  const between = (points, e) => {   // points: [[examples, value] …]
    const i = points.findIndex(([place]) => place >= e);
    if (i < 1) return points.at(i)?.[1];
    const [[a, from], [b, to]] = [points[i - 1], points[i]];
    return b > a ? from + (to - from) * (e - a) / (b - a) : to;
  };
  const scale = (low, high, [top, bottom]) => (value) => bottom - (value - low) / (high - low) * (bottom - top);
  const path = (points) => points.map(([px, py, on], i) => `${i && on ? 'L' : 'M'}${px.toFixed(1)},${py.toFixed(1)}`).join('');
  const axis = (name, ticks, y, [top, bottom]) => {
    for (const [value, text] of ticks) {
      figs.make(svg, 'line', {x1: left, x2: width - 12, y1: y(value), y2: y(value), class: 'grid'});
      figs.make(svg, 'text', {x: left - 8, y: y(value) + 4, class: 'end'}, text);
    }
    const middle = (top + bottom) / 2;
    figs.make(svg, 'text', {x: 11, y: middle, class: 'middle', transform: `rotate(-90 11 ${middle})`}, name);
  };
  const reviews = () => {
    const powers = Array.from({length: 9}, (_, i) => 10 ** i).filter((e) => e >= first && e <= last);
    for (const e of [0, ...powers]) {
      figs.make(svg, 'line', {x1: x(e), x2: x(e), y1: loss[0], y2: right[1], class: 'grid'});
      figs.make(svg, 'text', {x: x(e), y: right[1] + 18, class: 'middle'}, figs.count(e));
    }
    figs.make(svg, 'text', {x: across(0.5), y: right[1] + 38, class: 'middle'}, 'Reviews seen (logarithmic)');
  };
  const curve = ({name, color, dash, train, checks}, lossAt, accuracyAt, above) => {
    const look = {style: `stroke:var(--q-${color})`, 'stroke-dasharray': dashes[dash]};
    figs.make(svg, 'path', {d: path(train.map(([e, , raw]) => [x(e), lossAt(raw), true])), class: 'raw', ...look});
    figs.make(svg, 'path', {d: path(train.map(([e, , , smooth]) => [x(e), lossAt(smooth), true])), class: 'smooth', ...look});
    for (const [key, at] of [['loss', lossAt], ['accuracy', accuracyAt]]) {
      const points = checks.map((check) => [x(check.examples), at(check[key]), check.joined]);
      if (key === 'accuracy') figs.make(svg, 'path', {d: path(points), class: 'checks', ...look});
      for (const [px, py] of points) {
        figs.make(svg, 'path', {d: `M${px},${py - 5}l5,5l-5,5l-5,-5z`, class: 'mark', style: `fill:var(--q-${color})`});
      }
    }
    const end = checks.at(-1);
    if (end) figs.make(svg, 'text', {x: x(end.examples) - 8, y: accuracyAt(end.accuracy) + (above ? -9 : 20), class: 'end name', style: `fill:var(--q-${color})`},
      `${name} ${figs.percent(end.accuracy, 1)}`);
  };
  const axes = (runs) => {
    const losses = runs.flatMap(({train, checks}) => [...train.map((row) => row[2]), ...checks.map((check) => check.loss)]).filter((v) => v > 0);
    const [low, high] = losses.length ? [Math.min(...losses) / 1.15, Math.max(...losses) * 1.15] : [0.1, 1];
    const log = scale(Math.log(low), Math.log(high), loss), lossAt = (value) => log(Math.log(Math.max(value, low)));
    const ticks = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20].filter((tick) => tick > low && tick < high);
    const worst = Math.min(0.8, ...runs.flatMap(({checks}) => checks.map((check) => check.accuracy)));
    const bottom = Math.max(0, Math.floor(20 * worst) / 20 - 0.05), accuracyAt = scale(bottom, 1, right);
    axis('Loss (log)', ticks.map((tick) => [tick, `${tick}`]), lossAt, loss);
    axis('Accuracy', [0, 0.25, 0.5, 0.75, 1].filter((tick) => tick >= bottom).map((tick) => [tick, figs.percent(tick)]), accuracyAt, right);
    return [lossAt, accuracyAt];
  };
  const histogram = (checks, e) => {
    const {edge, bins, top} = props.value;
    canvas.hidden = !top;
    if (!top) return;
    const after = Math.max(0, checks.findIndex((check) => check.examples >= e)), before = Math.max(0, after - 1);
    const [a, b] = [checks[before], checks[after]], way = a === b ? 0 : (share(e) - share(a.examples)) / (share(b.examples) - share(a.examples));
    const counts = a.counts.map((row, label) => row.map((n, bin) => n + way * (b.counts[label][bin] - n)));
    figs.mirror(canvas, {counts, edge, bins, top, threshold: 50});
  };
  const move = (u) => {
    const run = props.value?.runs?.[0];
    if (!run || !width) return;
    head = u;
    const e = Math.min(last, seen(u) * 1.000001), clock = [...run.train, ...run.checks.map((check) => [check.examples, check.seconds])].sort((a, b) => a[0] - b[0]);
    const check = run.checks.findLast((one) => one.examples <= e), value = between(run.train.map((row) => [row[0], row[3]]), e);
    const words = [`${figs.count(e)} reviews seen`, `${(between(clock, e) ?? 0).toFixed(1)}\u202fs of training`];
    if (value != null) words.push(`training loss ${value.toFixed(2)}`);
    if (check) words.push(`validation ${figs.percent(check.accuracy, 1)} right at step ${figs.count(check.step)}`);
    output.textContent = words.join(' · '); slider.value = 1000 * u; slider.setAttribute('aria-valuetext', words.join(', '));
    const place = across(u), veil = svg.querySelector('.veil');
    svg.querySelector('.head').setAttribute('transform', `translate(${place} 0)`);
    veil.setAttribute('x', place + 6); veil.setAttribute('width', Math.max(0, width - place - 6));
    if (run.checks.length) histogram(run.checks, e);
  };
  const draw = () => {
    const {runs = []} = props.value ?? {}, places = runs.flatMap(({train, checks}) => [...train, ...checks.map((check) => [check.examples])]).map(([e]) => e).filter(Boolean);
    width = svg.clientWidth;
    if (!places.length || !width) return;
    first = Math.min(...places); last = Math.max(...places, first + 1);
    svg.replaceChildren();
    const [lossAt, accuracyAt] = axes(runs);
    reviews();
    runs.forEach((run, i) => curve(run, lossAt, accuracyAt, i % 2 === 0));
    figs.make(svg, 'rect', {class: 'veil', y: 0, height: right[1] + 2});
    figs.make(svg, 'line', {class: 'head', x1: 0, x2: 0, y1: 4, y2: right[1]});
    move(head);
  };
  const halt = () => { stop?.(); stop = null; button.textContent = '▶ Play'; };
  const play = () => { button.textContent = '■ Stop'; stop = figs.animate(seconds, move, halt); if (figs.still()) halt(); };
  const point = (event) => { halt(); move(Math.max(0, Math.min(1, (event.offsetX - left) / (width - left - 12)))); };
  button.addEventListener('click', () => (stop ? halt() : play()));
  slider.addEventListener('input', () => { halt(); move(slider.value / 1000); });
  svg.addEventListener('pointerdown', (event) => { svg.setPointerCapture(event.pointerId); point(event); });
  svg.addEventListener('pointermove', (event) => { if (event.buttons) point(event); });
  watch(['value'], draw); draw();
  new ResizeObserver(draw).observe(svg);
  new MutationObserver(() => move(head)).observe(document.body, {attributeFilter: ['class']});
};
