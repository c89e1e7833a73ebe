// What the page's own figures share; each has a file of its own beside this one. No text of a visitor is ever parsed
// as HTML: it goes in by textContent. `figs.at` holds what several figures show; who draws it subscribes by `figs.on`.
window.figs ??= (() => {
  const subscribers = new Set(), at = {threshold: 50, mix: 0};
  const still = () => matchMedia('(prefers-reduced-motion: reduce)').matches;
  const percent = (p, digits = 0) => `${(100 * p).toFixed(digits)}\u202f%`;
  const count = (n) => Math.round(n).toLocaleString('en');
  const make = (parent, tag, attributes = {}, text = '') => {
    const node = parent.appendChild(tag === 'svg' || parent.namespaceURI.endsWith('svg')
      ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag));
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text) node.textContent = text;
    return node;
  };
  // A grid line of P(positive), the one of 50 % dashed; and points [x, y, actor], joined by a line: the base model's
  // are squares, all others circles
  const grid = (svg, p, line) => make(svg, 'line', {...line, class: p === 0.5 ? 'grid half' : 'grid'});
  const joined = (svg, points, kind, size) => {
    make(svg, 'polyline', {points: points.map(([x, y]) => `${x},${y}`).join(' '), class: `path ${kind}`});
    for (const [x, y, actor] of points) {
      const square = {x: x - size, y: y - size, width: 2 * size, height: 2 * size, class: 'mark base'};
      if (actor === 'base') make(svg, 'rect', square);
      else make(svg, 'circle', {cx: x, cy: y, r: size, class: `mark ${actor}`});
    }
  };
  const animate = (seconds, draw, done = () => {}) => {
    if (still()) { draw(1); done(); return () => {}; }
    let stopped = false;
    const began = performance.now(), step = (now) => {
      if (stopped) return;
      const share = Math.min(1, (now - began) / (1000 * seconds));
      draw(share);
      if (share < 1) requestAnimationFrame(step); else done();
    };
    requestAnimationFrame(step);
    return () => { stopped = true; };
  };
  const on = (draw, only) => { subscribers.add((key) => (only ?? key) === key && draw(key)); draw(); };
  return {
    at, animate, count, grid, joined, make, on, percent, still,
    // [props, watch] of a figure whose value is a part of what the Live tab shows
    shown: (part) => [{get value() { return at.view?.[part]; }}, (_, draw) => on(draw, 'view')],
    set(key, value) { if (at[key] !== value) { at[key] = value; subscribers.forEach((draw) => draw(key)); } },
  };
})();
