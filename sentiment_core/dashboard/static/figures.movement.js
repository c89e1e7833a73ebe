// The threshold's slider, in log-odds: its steps are the edges between bins, where counts are exact. Where Python draws
// what follows from it, `tell` tells it once the line has come to rest.
figs.threshold = (element, tell) => {
  const input = element.querySelector('input'), output = element.querySelector('output');
  let told = 50, wait;
  input.addEventListener('input', () => figs.set('threshold', 100 * figs.probability(input.value)));
  figs.on(() => {
    const at = figs.at.threshold, words = `${Number(at.toPrecision(3))}\u202f%`;
    input.value = figs.logit(at / 100); input.setAttribute('aria-valuetext', words); output.textContent = words;
    clearTimeout(wait);
    if (tell && at !== told) wait = setTimeout(() => { told = at; tell(at); }, 150);
  });
};
// Reviews on their way from one system's bins to another's. value: {cells: [[label, from, to, n] …], edge, bins, top,
// edges: P(positive) between bins}, as JSON text; figs.at.mix runs from 0 (before) to 1 (after); figs.at.pin: the visitor's.
figs.movement = (element, props, watch) => {
  const part = (selector) => element.querySelector(selector), canvas = part('canvas'), button = part('button');
  const end = () => (figs.at.mix > 0.5 ? 1 : 0), when = () => (end() ? 'after' : 'before');
  const said = (at) => value.words[at] + (at || value.versus ? '' : ' fine-tuning');
  let value = {}, stop = () => {}, found = null, held = false;
  const sum = (...rows) => rows.reduce((all, row) => row.reduce((part, n) => part + n, all), 0);
  const counted = (cells, bins) => {
    const counts = [0, 1].map(() => new Float64Array(bins + 1));
    for (const [label, from, to, n] of cells) {
      const place = from + (to - from) * figs.at.mix, low = Math.floor(place), rest = place - low;
      counts[label][low] += n * (1 - rest); counts[label][low + 1] += n * rest;
    }
    return counts;
  };
  const pin = ({context: c, x, words, colour, middle, cut, right}) => {
    const [from, to] = [figs.at.pin.base, figs.at.pin.fine].map((p) => x(figs.logit(p)));
    const at = from + (to - from) * figs.at.mix, room = 100;  // of the words, which stay off the threshold's line
    const [align, by] = at > room && (at < cut || at > right - room) ? ['right', -12] : ['left', 12], yours = `your ${value.noun.slice(0, -1)}`;
    c.font = '650 13px system-ui, sans-serif'; c.lineWidth = 4; c.textAlign = align; c.strokeStyle = colour('page');
    c.strokeText(yours, at + by, middle + 4); words(yours, at + by, middle + 4, 'ink', align);
    c.beginPath(); c.arc(at, middle, 7, 0, 7); c.stroke(); c.fill();
  };
  const draw = () => {
    const {cells = [], edge, bins} = value, {threshold} = figs.at;
    if (!cells.length) return;
    const counts = counted(cells, bins), n = sum(...counts);
    const cut = Math.round((figs.logit(threshold / 100) + edge) * bins / (2 * edge));
    const share = figs.percent(sum(counts[0].subarray(0, cut), counts[1].subarray(cut)) / n, 1);
    const words = `of ${figs.count(n)} ${value.noun} right, ${said(end())}`;
    part('.num').textContent = share; part('.of').textContent = words;
    button.textContent = `${end() ? '◂ Back to ' : '▸ Show '}${said(1 - end())}`;
    canvas.setAttribute('aria-label', `By P(positive): ${share} ${words}`);
    found = figs.mirror(canvas, {...value, counts, threshold});
    if (found) { found.counts = counts; if (figs.at.pin && !value.versus) pin(found); }
  };
  const place = (event) => (event.offsetX - found.left) / found.step;  // in bins
  const under = (event) => {  // the bar there, as a question to *Example predictions*; null where there is none
    const bin = Math.floor(place(event)), label = event.offsetY < found.middle ? 1 : 0, {edges, versus} = value;
    const n = Math.round(found.counts[label][bin] ?? 0);
    return n ? {side: when(), low: edges[bin], high: edges[bin + 1], label, versus} : null;
  };
  const near = (event) => found && Math.abs(event.offsetX - found.cut) < 12;
  canvas.addEventListener('pointerdown', (event) => { held = near(event); if (held) canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener('pointermove', (event) => {
    if (!found) return;
    const edge = Math.max(10, Math.min(80, Math.round(place(event))));  // between the ends of the slider
    if (held && event.buttons) figs.set('threshold', 100 * value.edges[edge]);
    canvas.style.cursor = near(event) ? 'ew-resize' : under(event) ? 'pointer' : '';
  });
  canvas.addEventListener('click', (event) => { if (found && !held && under(event)) figs.examine(under(event)); });
  button.addEventListener('click', () => {
    const from = figs.at.mix, way = 1 - end() - from;
    stop(); stop = figs.animate(1.5, (share) => figs.set('mix', from + way * (1 - Math.cos(Math.PI * share)) / 2));
  });
  const read = () => { value = JSON.parse(props.value || '{}'); draw(); };
  figs.threshold(element); figs.on(draw); watch(['value'], read); read();
  new ResizeObserver(draw).observe(canvas);
  new MutationObserver(draw).observe(document.body, {attributeFilter: ['class']});
};
