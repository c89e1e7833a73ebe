// An answer as a picture: both models' cards and the reading trace, drawn from the data and saved by the browser
figs.pictureOf = ({base, fine, trace}) => {
  const WIDTH = 1000, LEFT = 40, TRACK = 640, LINE = 23, TOP = 190;
  const canvas = document.createElement('canvas'), c = canvas.getContext('2d');
  const pen = (name) => {
    c.fillStyle = c.strokeStyle = getComputedStyle(document.body).getPropertyValue(`--q-${name}`);
  };
  const write = (text, x, y, ink = 'ink', font = '16px') => {
    pen(ink); c.font = `${font} system-ui, sans-serif`; c.fillText(text, x, y, WIDTH - 10 - x);
  };
  const wrapped = (text) => text.split(/\s+/).reduce((lines, word) => {
    const longer = `${lines.at(-1)} ${word}`.trim();
    const fits = c.measureText(longer).width <= TRACK - LEFT - 30;
    return fits ? [...lines.slice(0, -1), longer] : [...lines, word];
  }, ['']);
  const x = (p) => TRACK + p * (WIDTH - LEFT - TRACK);
  write('', 0, 0);  // sets the font that is measured
  let end = TOP;
  const rows = trace.rows.map((row) => {
    const lines = wrapped(row.text), top = end;
    end += lines.length * LINE + 8;
    return {...row, lines, top, middle: (top + end) / 2 - 4};
  });
  canvas.width = 2 * WIDTH; canvas.height = 2 * (end + 50);
  c.scale(2, 2); pen('page'); c.fillRect(0, 0, WIDTH, end + 50);
  for (const p of [0, 0.5, 1]) {
    write(100 * p, x(p) - 8, TOP - 10, 'muted', '12px'); pen('line'); c.fillRect(x(p), TOP - 4, 1, end - TOP);
  }
  for (const [actor, {p}, sign, left] of [['base', base, '■', LEFT], ['fine', fine, '●', WIDTH / 2 + 10]]) {
    const [word, leaning] = figs.said(p, actor);
    pen(actor); c.fillRect(left, 32, 6, 76);
    write(figs.NAMES[actor], left + 20, 46, 'muted');
    write(word, left + 20, 80, leaning ? 'ink' : word.toLowerCase(), '650 28px');
    write(`${leaning ? `${leaning}, ` : ''}P(positive) = ${figs.percent(p, 1)}`, left + 20, 106, 'muted');
    pen(actor); c.lineWidth = 2; c.beginPath();
    for (const row of rows) c.lineTo(x(row[actor]), row.middle);
    c.stroke();
    for (const row of rows) write(sign, x(row[actor]) - 6, row.middle + 6, actor);
  }
  write(figs.finding(trace.rows), LEFT, 146, 'ink', '650 16px');
  for (const {lines, top} of rows) lines.forEach((line, i) => write(line, LEFT, top + 16 + i * LINE));
  write(figs.worded('■ base model   ● fine-tuned: P(positive) in % if the review ended there'), LEFT, end + 28, 'muted', '13px');
  figs.save(canvas, 'two-models-read.png');
};
