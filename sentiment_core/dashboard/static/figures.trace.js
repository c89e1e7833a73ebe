// The reading trace: rows {text, base, fine} (probabilities or null), joined downwards beside the clauses
figs.trace = (element, props, watch) => {
  const list = element.querySelector('ol'), finding = element.querySelector('h3'), note = element.querySelector('p');
  let shown = '', stop = () => {};
  const marks = (svg, rows, actor, places, width) => {
    const x = (p) => 8 + p * (width - 16);
    const points = rows.map((row, i) => row[actor] == null ? null : [x(row[actor]), places[i]]).filter(Boolean);
    if (!points.length) return;
    figs.make(svg, 'polyline', {points: points.join(' '), class: `path ${actor}`, pathLength: 1});
    for (const [px, py] of points) {
      if (actor === 'fine') figs.make(svg, 'circle', {cx: px, cy: py, r: 5, class: 'mark fine'});
      else figs.make(svg, 'rect', {x: px - 4.5, y: py - 4.5, width: 9, height: 9, class: 'mark base'});
    }
  };
  const lines = (rows) => {
    element.querySelector('svg.tracks')?.remove();
    const cell = list.querySelector('.track');
    if (!cell || !cell.clientWidth) return;
    const svg = figs.make(element.querySelector('.frame'), 'svg', {class: 'tracks', 'aria-hidden': 'true'});
    const frame = element.querySelector('.frame').getBoundingClientRect(), box = cell.getBoundingClientRect();
    const places = [...list.children].map((li) => {
      const r = li.getBoundingClientRect();
      return r.top - frame.top + r.height / 2;
    });
    const height = list.getBoundingClientRect().bottom - frame.top;
    svg.style.left = `${box.left - frame.left}px`;
    svg.setAttribute('width', box.width); svg.setAttribute('height', height);
    for (const p of [0, 0.5, 1]) {
      const x = 8 + p * (box.width - 16);
      figs.make(svg, 'line', {x1: x, x2: x, y1: 4, y2: height - 4, class: p === 0.5 ? 'grid half' : 'grid'});
    }
    marks(svg, rows, 'base', places, box.width);
    marks(svg, rows, 'fine', places, box.width);
    return svg;
  };
  const draw = () => {
    const {rows = [], title = '', caption = '', move: least} = props.value ?? {};
    element.querySelector('.frame').hidden = !rows.length;
    finding.textContent = title; note.textContent = caption;
    while (list.children.length > rows.length) list.lastChild.remove();
    rows.forEach((row, i) => {
      const li = list.children[i] ?? figs.make(list, 'li', {tabindex: 0});
      if (!li.firstChild) {
        figs.make(li, 'span', {class: 'clause', dir: 'auto'}); figs.make(li, 'span', {class: 'track'}); figs.make(li, 'span', {class: 'said'});
      }
      const before = i ? rows[i - 1].fine : null, move = row.fine == null || before == null ? 0 : row.fine - before;
      const strong = Math.abs(move) >= least;
      li.className = strong ? (move > 0 ? 'up' : 'down') : '';
      li.style.setProperty('--move', Math.min(1, Math.abs(move) / 0.5).toFixed(2));
      const [clause, , said] = li.children;
      if (clause.textContent !== row.text) clause.textContent = row.text;
      said.textContent = [row.base == null ? '' : `■ base ${figs.percent(row.base)}`, row.fine == null ? '' : `● fine-tuned ${figs.percent(row.fine)}`]
        .filter(Boolean).join('   ');
    });
    stop();
    const last = rows.at(-1);
    if (element.closest('#trace') && last?.base != null) figs.set('pin', {base: last.base, fine: last.fine});
    const whole = rows.map((row) => row.text).join('');
    const svg = lines(rows);
    if (!svg || whole === shown) return;
    shown = whole;
    stop = figs.animate(0.8, (share) => svg.style.clipPath = `inset(0 0 ${100 * (1 - share)}% 0)`, () => { svg.style.clipPath = ''; });
  };
  watch(['value'], draw); draw();
  new ResizeObserver(() => lines(props.value?.rows ?? [])).observe(element);
};
