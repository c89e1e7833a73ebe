// The threshold's slider, in log-odds: its steps are the edges between bins, where counts are exact.
figs.threshold = (element) => {
  const input = element.querySelector('input'), output = element.querySelector('output');
  input.addEventListener('input', () => figs.set('threshold', 100 * figs.probability(input.value)));
  figs.on(() => {
    const words = `${Number(figs.at.threshold.toPrecision(3))}\u202f%`;
    input.value = figs.logit(figs.at.threshold / 100);
    input.setAttribute('aria-valuetext', words); output.textContent = words;
  });
};
// The same slider where Python draws what follows from it: told once the line has come to rest
figs.tellThreshold = (element, trigger) => {
  let told = 50, wait;
  figs.threshold(element);
  figs.on(() => {
    clearTimeout(wait);
    const {threshold} = figs.at;
    if (threshold !== told) wait = setTimeout(() => { told = threshold; trigger('threshold', {at: threshold}); }, 150);
  });
};
// Reviews on their way from one system's bins to another's. value: {cells: [[label, from, to, n] …], edge, bins, top,
// title, caption}; figs.at.mix runs from 0 (before) to 1 (after); figs.at.pin is the visitor's own {base, fine}.
figs.movement = (element, props, watch) => {
  const part = (selector) => element.querySelector(selector), canvas = part('canvas'), button = part('button');
  const end = () => (figs.at.mix > 0.5 ? 1 : 0);
  const when = () => (end() ? 'after' : 'before');
  let stop = () => {}, found = null, held = false;
  const counted = ({cells, bins}) => {
    const counts = [new Float64Array(bins), new Float64Array(bins)];
    for (const [label, from, to, n] of cells) {
      const place = from + (to - from) * figs.at.mix, low = Math.floor(place), rest = place - low;
      counts[label][low] += n * (1 - rest);
      if (rest) counts[label][low + 1] += n * rest;
    }
    return counts;
  };
  const right = (counts, {edge, bins}) => {
    const cut = Math.round((figs.logit(figs.at.threshold / 100) + edge) * bins / (2 * edge));
    const sum = (row) => row.reduce((all, n) => all + n, 0);
    return sum(counts[0].subarray(0, cut)) + sum(counts[1].subarray(cut));
  };
  const pin = ({context: c, x, words, colour, middle, left, right}) => {
    const {base, fine} = figs.at.pin ?? {}, {mix} = figs.at;
    if (base == null || fine == null) return;
    const [from, to] = [base, fine].map((p) => x(figs.logit(Math.min(0.9999, Math.max(0.0001, p)))));
    const place = from + (to - from) * mix, side = place > (left + right) / 2 ? ['right', -12] : ['left', 12];
    c.font = '650 13px system-ui, sans-serif'; c.lineWidth = 4; [c.textAlign] = side; c.strokeStyle = colour('page');
    c.strokeText('your review', place + side[1], middle + 4);
    words('your review', place + side[1], middle + 4, 'ink', side[0]);
    c.beginPath(); c.arc(place, middle, 7, 0, 7); c.stroke(); c.fill();
  };
  const draw = () => {
    const value = props.value ?? {};
    part('.movement').hidden = !value.cells?.length;
    if (!value.cells?.length) return;
    const counts = counted(value), n = value.cells.reduce((all, cell) => all + cell[3], 0);
    const share = figs.percent(right(counts, value) / n, 1);
    part('h2').textContent = value.title; part('.caption').textContent = value.caption;
    part('.num').textContent = share;
    part('.of').textContent = `of ${figs.count(n)} reviews right, ${when()} fine-tuning`;
    button.textContent = end() ? '◂ Back to before' : '▸ Show after fine-tuning';
    canvas.setAttribute('aria-label', `Reviews by P(positive), ${when()} fine-tuning: ${share} of ${figs.count(n)} right`);
    found = figs.mirror(canvas, {...value, counts, threshold: figs.at.threshold});
    if (found) { found.counts = counts; pin(found); }
  };
  const below = (bin) => {  // P(positive) at its lower edge; the outermost bins hold what lies beyond the axis
    const {edge, bins} = props.value;
    return bin <= 0 ? 0 : bin >= bins ? 1 : figs.probability(bin * 2 * edge / bins - edge);
  };
  const under = (event) => {  // the bar there, as a question to *Example predictions*; null where there is none
    const bin = Math.floor((event.offsetX - found.left) / found.step), label = event.offsetY < found.middle ? 1 : 0;
    const n = Math.round(found.counts[label][bin] ?? 0);
    return n ? {n, ask: {side: when(), low: below(bin), high: below(bin + 1), label}} : null;
  };
  const near = (event) => found && Math.abs(event.offsetX - found.cut) < 12;
  canvas.addEventListener('pointerdown', (event) => {
    held = near(event);
    if (held) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener('pointermove', (event) => {
    if (!found) return;
    if (held && event.buttons) {
      const edge = below(Math.round((event.offsetX - found.left) / found.step));
      figs.set('threshold', 100 * Math.max(figs.probability(-7), Math.min(figs.probability(7), edge)));
    }
    const bar = under(event), said = (p) => Number((100 * p).toPrecision(3));
    canvas.style.cursor = near(event) ? 'ew-resize' : bar ? 'pointer' : '';
    canvas.title = bar && !held ? `${figs.count(bar.n)} ${bar.ask.label ? 'positive' : 'negative'} reviews, `
      + `P(positive) ${said(bar.ask.low)}–${said(bar.ask.high)}\u202f%` : '';
  });
  canvas.addEventListener('click', (event) => {
    const bar = found && !held && under(event);
    if (bar) figs.examine(bar.ask);
  });
  button.addEventListener('click', () => {
    stop();
    const from = figs.at.mix, to = 1 - end();
    stop = figs.animate(1.5, (share) => figs.set('mix', from + (to - from) * figs.ease(share)));
  });
  figs.threshold(element); figs.on(draw); watch(['value'], draw);
  new ResizeObserver(draw).observe(canvas);
  new MutationObserver(draw).observe(document.body, {attributeFilter: ['class']});
};
