// What the page's own figures share; each has a file of its own beside this one. No text of a visitor is ever parsed
// as HTML: it goes in by textContent. `figs.at` holds what several figures show alike; who draws it subscribes by `figs.on`.
window.figs ??= (() => {
  const subscribers = new Set(), at = {threshold: 50, mix: 0};
  const still = () => matchMedia('(prefers-reduced-motion: reduce)').matches;
  const percent = (p, digits = 0) => `${(100 * p).toFixed(digits)}\u202f%`;
  const count = (n) => Math.round(n).toLocaleString('en');
  const ease = (t) => (t < 0.5 ? 2 * t * t : 1 - 2 * (1 - t) * (1 - t));
  const make = (parent, tag, attributes = {}, text = '') => {
    const node = parent.appendChild(tag === 'svg' || parent.namespaceURI.endsWith('svg')
      ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag));
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text) node.textContent = text;
    return node;
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
  return {
    at, animate, count, ease, make, percent, still,
    on(draw) { subscribers.add(draw); draw(); },
    // [props, watch] of a figure whose value is the shared one of that name
    subscribed: (key) => [{get value() { return at[key]; }}, (_, draw) => subscribers.add((changed) => changed === key && draw())],
    set(key, value) { if (at[key] !== value) { at[key] = value; subscribers.forEach((draw) => draw(key)); } },
  };
})();
