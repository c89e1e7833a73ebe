// The reading trace: rows {text, base, fine} (probabilities or null), joined downwards beside the clauses
// Their title: where the fine-tuned model made up its mind, and what the base model did meanwhile
figs.finding = (rows) => {
  const [base, fine] = ['base', 'fine'].map((actor) => rows.map((row) => row[actor])), p = fine.at(-1);
  if (base.at(-1) == null) return rows.length ? 'Reading once more, clause by clause…' : '';
  const least = Math.min(...base), greatest = Math.max(...base), [low, high] = [least, greatest].map((q) => (100 * q).toFixed(0));
  const where = low === high ? `at ${low} %` : `between ${low} and ${high} %`;
  const beside = `the base model ${greatest - least < 0.25 ? 'stayed' : 'moved'} ${where}`;
  if (p == null) return beside.replace('t', 'T');
  if (p >= 0.3 && p <= 0.7) return `It did not make up its mind; ${beside}`;
  const turned = fine.findLastIndex((q, i) => i && figs.called(fine[i - 1]) !== figs.called(p));
  if (turned > 0) return `It made up its mind at “${figs.quoted(rows[turned].text)}”; ${beside}`;
  return `It said ${figs.WORDS[figs.called(p)]} from the first clause on; ${beside}`;
};
// A clause without its marks; of a long one the last words
figs.quoted = (clause, most = 48) => {
  const words = clause.replace(/^[\s,.;:!?…–—\-"“”]+|[\s,.;:!?…–—\-"“”]+$/g, '') || clause;
  return words.length > most ? `…${words.slice(-most - 1).replace(/^\S*\s/, '')}` : words;
};
figs.trace = (element, props, watch) => {
  const [title, frame, svg, list, note] = ['h3', '.frame', 'svg', 'ol', 'p'].map((part) => element.querySelector(part));
  const MOVE = 0.05;  // a smaller step, the caption says, is no move: number formats of a CPU differ by as much
  let drawn = ''; const caption = note.textContent;
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
    const {rows = []} = props.value ?? {};
    frame.hidden = note.hidden = !rows.length;
    title.textContent = figs.finding(rows); note.textContent = figs.worded(caption); list.replaceChildren();
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
