// Mirrored histograms on a log-odds axis: positive reviews upwards, negative ones downwards; hollow: called wrongly.
// counts: [negative, positive] reviews a bin; edge: log-odds of the axis's ends; top: reviews of a bar of full height;
// threshold in percent; noun: what they are called. Returns where things are, in CSS pixels; null without a width.
figs.logit = (p) => Math.log(p / (1 - p));
figs.probability = (odds) => 1 / (1 + Math.exp(-odds));
figs.mirror = (canvas, {counts, edge, bins, top, threshold, noun}) => {
  const width = canvas.clientWidth, height = canvas.clientHeight, scale = window.devicePixelRatio || 1;
  if (!width || !height) return null;
  canvas.width = Math.round(width * scale); canvas.height = Math.round(height * scale);
  const c = canvas.getContext('2d'), style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(`--q-${name}`).trim();
  const left = 8, right = width - 8, head = 20, foot = 22, middle = (head + height - foot) / 2;
  const x = (odds) => left + (Math.max(-edge, Math.min(edge, odds)) + edge) / (2 * edge) * (right - left);
  const cut = x(figs.logit(threshold / 100)), step = (right - left) / bins;
  const words = (text, px, py, name, align = 'left') => {
    c.fillStyle = colour(name); c.textAlign = align; c.fillText(text, px, py);
  };
  const bar = (n, bin, label) => {
    const room = middle - head - 4, size = Math.min(room, Math.max(1, room * n / top)), thick = Math.max(1, step - 1);
    const px = left + bin * step + 0.5, py = label ? middle - 1.5 - size : middle + 1.5;
    const wrong = (px + step / 2 >= cut) !== Boolean(label), hollow = wrong && size > 2 && thick > 2;
    c.fillStyle = c.strokeStyle = colour(label ? 'positive' : 'negative');
    c.globalAlpha = hollow ? 0.25 : wrong ? 0.6 : 1; c.fillRect(px, py, thick, size); c.globalAlpha = 1;
    if (hollow) c.strokeRect(px + 0.5, py + 0.5, thick - 1, size - 1);
  };
  c.scale(scale, scale); c.font = '12px system-ui, sans-serif';
  counts.forEach((row, label) => row.forEach((n, bin) => { if (n) bar(n, bin, label); }));
  words(`▲ positive ${noun}`, left, head + 14, 'positive');
  words(`▼ negative ${noun}`, left, height - foot - 6, 'negative');
  for (const tick of width < 500 ? [1, 10, 50, 90, 99] : [0.1, 1, 10, 50, 90, 99, 99.9]) {
    words(`${tick}\u202f%`, x(figs.logit(tick / 100)), height - 5, 'muted', 'center');
  }
  c.strokeStyle = colour('line'); c.strokeRect(left, middle, right - left, 0);
  c.strokeStyle = colour('ink'); c.lineWidth = 1.5; c.setLineDash([5, 3]);
  c.beginPath(); c.moveTo(cut, 4); c.lineTo(cut, height - foot); c.stroke(); c.setLineDash([]);
  const fits = (text, space) => c.measureText(text).width + 8 <= space;
  words(fits('called Negative ←', cut) ? 'called Negative ←' : '←', cut - 6, 13, 'ink', 'right');
  words(fits('→ called Positive', width - cut) ? '→ called Positive' : '→', cut + 6, 13, 'ink');
  return {context: c, colour, words, left, right, middle, step, x, cut};
};
