// The page's own figures: the reading trace, the moving histograms, the replay. No text of a visitor is ever parsed
// as HTML: it goes in by textContent. `figs.at` holds what several figures share; who draws subscribes with `figs.on`.
(() => {
  if (window.figs) return;
  const subscribers = new Set(), at = {threshold: 50, mix: 1};
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
  const ease = (t) => (t < 0.5 ? 2 * t * t : 1 - 2 * (1 - t) * (1 - t));
  const figs = window.figs = {
    at,
    on(draw) { subscribers.add(draw); draw(); },
    set(key, value) { if (at[key] !== value) { at[key] = value; subscribers.forEach((draw) => draw(key)); } },
  };

  // ---- the reading trace: rows {text, base, fine} (probabilities or null), joined downwards beside the clauses

  figs.trace = (element, props, watch) => {
    const list = element.querySelector('ol'), finding = element.querySelector('h3'), note = element.querySelector('p');
    let shown = '', stop = () => {};
    const marks = (svg, rows, actor, places, width) => {
      const x = (p) => 8 + p * (width - 16);
      const points = rows.map((row, i) => row[actor] == null ? null : [x(row[actor]), places[i]]).filter(Boolean);
      if (!points.length) return;
      make(svg, 'polyline', {points: points.join(' '), class: `path ${actor}`, pathLength: 1});
      for (const [px, py] of points) {
        if (actor === 'fine') make(svg, 'circle', {cx: px, cy: py, r: 5, class: 'mark fine'});
        else make(svg, 'rect', {x: px - 4.5, y: py - 4.5, width: 9, height: 9, class: 'mark base'});
      }
    };
    const lines = (rows) => {
      element.querySelector('svg.tracks')?.remove();
      const cell = list.querySelector('.track');
      if (!cell || !cell.clientWidth) return;
      const svg = make(element.querySelector('.frame'), 'svg', {class: 'tracks', 'aria-hidden': 'true'});
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
        make(svg, 'line', {x1: x, x2: x, y1: 4, y2: height - 4, class: p === 0.5 ? 'grid half' : 'grid'});
      }
      marks(svg, rows, 'base', places, box.width);
      marks(svg, rows, 'fine', places, box.width);
      return svg;
    };
    const draw = () => {
      const {rows = [], title = '', caption = ''} = props.value ?? {};
      element.querySelector('.frame').hidden = !rows.length;
      finding.textContent = title; note.textContent = caption;
      while (list.children.length > rows.length) list.lastChild.remove();
      rows.forEach((row, i) => {
        const li = list.children[i] ?? make(list, 'li', {tabindex: 0});
        if (!li.firstChild) {
          make(li, 'span', {class: 'clause', dir: 'auto'}); make(li, 'span', {class: 'track'}); make(li, 'span', {class: 'said'});
        }
        const before = i ? rows[i - 1].fine : null, move = row.fine == null || before == null ? 0 : row.fine - before;
        const strong = Math.abs(move) >= 0.05;
        li.className = strong ? (move > 0 ? 'up' : 'down') : '';
        li.style.setProperty('--move', Math.min(1, Math.abs(move) / 0.5).toFixed(2));
        const [clause, , said] = li.children;
        if (clause.textContent !== row.text) clause.textContent = row.text;
        said.textContent = [row.base == null ? '' : `■ base ${percent(row.base)}`, row.fine == null ? '' : `● fine-tuned ${percent(row.fine)}`]
          .filter(Boolean).join('   ');
      });
      stop();
      const whole = rows.map((row) => row.text).join('');
      const svg = lines(rows);
      if (!svg || whole === shown) return;
      shown = whole;
      stop = animate(0.8, (share) => svg.style.clipPath = `inset(0 0 ${100 * (1 - share)}% 0)`, () => { svg.style.clipPath = ''; });
    };
    watch(['value'], draw); draw();
    new ResizeObserver(() => lines(props.value?.rows ?? [])).observe(element);
  };

  // ---- histograms on a log-odds axis. value: {edge, bins, cells: [[label, from, to, n] …], names, accuracy}

  figs.histogram = (element, props, watch, trigger) => {
    const canvas = element.querySelector('canvas'), play = element.querySelector('button');
    const readout = element.querySelector('.readout'), TICKS = [0.1, 1, 10, 50, 90, 99, 99.9];
    let stop = () => {}, geometry = null;
    const logit = (p) => Math.log(p / (1 - p));
    const colour = (name) => getComputedStyle(element).getPropertyValue(`--q-${name}`).trim();
    const share = () => props.value?.single ? 0 : at.mix;
    const counted = () => {  // [negative, positive] counts per bin, each review on its way from its old place to its new one
      const {bins, cells} = props.value, mix = share(), out = [new Float64Array(bins), new Float64Array(bins)];
      for (const [label, from, to, n] of cells) {
        const place = from + (to - from) * mix, low = Math.min(bins - 1, Math.floor(place)), part = place - low;
        out[label][low] += n * (1 - part);
        if (part > 0) out[label][Math.min(bins - 1, low + 1)] += n * part;
      }
      return out;
    };
    const draw = () => {
      const value = props.value;
      if (!value?.cells || !canvas.clientWidth) return;
      const width = canvas.clientWidth, height = canvas.clientHeight, scale = devicePixelRatio || 1;
      canvas.width = width * scale; canvas.height = height * scale;
      const c = canvas.getContext('2d');
      c.scale(scale, scale);
      const {edge, bins} = value, left = 10, right = width - 10, middle = (height - 26) / 2, room = middle - 26;
      const x = (odds) => left + (Math.max(-edge, Math.min(edge, odds)) + edge) / (2 * edge) * (right - left);
      const counts = counted(), cut = logit(Math.min(0.9999, Math.max(0.0001, at.threshold / 100)));
      const top = Math.max(value.top || 1, 1), step = (right - left) / bins;
      geometry = {left, right, step, bins, edge};
      c.font = '12px system-ui, sans-serif'; c.textAlign = 'center';
      counts.forEach((row, label) => row.forEach((n, bin) => {
        const size = n ? Math.max(1, room * n / top) : 0;
        c.fillStyle = colour(label ? 'positive' : 'negative');
        const called = -edge + (bin + 0.5) * 2 * edge / bins >= cut ? 1 : 0;
        c.globalAlpha = called === label ? 0.9 : 0.45;
        c.fillRect(left + bin * step + 0.5, label ? middle - 1 - size : middle + 1, Math.max(1, step - 1), size);
      }));
      c.globalAlpha = 1; c.fillStyle = colour('muted');
      for (const tick of TICKS) c.fillText(`${tick} %`, x(logit(tick / 100)), height - 6);
      c.strokeStyle = colour('ink'); c.setLineDash([4, 3]); c.lineWidth = 1.5;
      c.beginPath(); c.moveTo(x(cut), 18); c.lineTo(x(cut), height - 24); c.stroke(); c.setLineDash([]);
      c.textAlign = 'right'; c.fillText('called Negative ←', x(cut) - 6, 12);
      c.textAlign = 'left'; c.fillText('→ called Positive', x(cut) + 6, 12);
      c.fillStyle = colour('positive'); c.textAlign = 'left'; c.fillText('▲ positive reviews', left, 30);
      c.fillStyle = colour('negative'); c.fillText('▼ negative reviews', left, height - 34);
      const pin = props.pin;
      if (pin?.base != null && pin?.fine != null) {
        const px = x(logit(Math.min(0.9999, Math.max(0.0001, pin.base))) * (1 - share())
          + logit(Math.min(0.9999, Math.max(0.0001, pin.fine))) * share());
        c.fillStyle = colour('ink');
        c.beginPath(); c.arc(px, middle, 6, 0, 7); c.fill();
        c.textAlign = px > width / 2 ? 'right' : 'left';
        c.fillText('your review', px + (px > width / 2 ? -10 : 10), middle + 4);
      }
      let right_, all = 0; right_ = 0;
      counts.forEach((row, label) => row.forEach((n, bin) => {
        all += n;
        if ((-edge + (bin + 0.5) * 2 * edge / bins >= cut ? 1 : 0) === label) right_ += n;
      }));
      readout.textContent = `${percent(right_ / all, 1)} of ${count(all)} right`;
    };
    figs.on(draw); watch(['value', 'pin'], draw);
    new ResizeObserver(draw).observe(canvas);
    new MutationObserver(draw).observe(document.body, {attributeFilter: ['class']});
    play?.addEventListener('click', () => {
      stop();
      const from = at.mix, to = from > 0.5 ? 0 : 1;
      stop = animate(1.5, (t) => figs.set('mix', from + (to - from) * ease(t)));
      play.textContent = to ? play.dataset.back : play.dataset.go;
    });
    let wait, dragging = false, moved = false;
    const probability = (event) => {  // of the nearest edge between two bins, where counts are exact
      const {left, step, bins, edge} = geometry;
      const bin = Math.max(0, Math.min(bins, Math.round((event.offsetX - left) / step)));
      return 100 / (1 + Math.exp(edge - bin * 2 * edge / bins));
    };
    const put = (value) => {
      figs.set('threshold', Math.round(value * 10) / 10);
      clearTimeout(wait); wait = setTimeout(() => trigger('threshold', {at: at.threshold}), 200);
    };
    canvas.addEventListener('pointerdown', (event) => {
      if (!geometry) return;
      const odds = logit(Math.min(0.9999, Math.max(0.0001, at.threshold / 100)));
      const px = geometry.left + (odds + geometry.edge) / (2 * geometry.edge) * (geometry.right - geometry.left);
      dragging = Math.abs(event.offsetX - px) < 14; moved = false;
      if (dragging) canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener('pointermove', (event) => { if (dragging) { moved = true; put(probability(event)); } });
    canvas.addEventListener('pointerup', (event) => {
      if (!dragging && geometry) {
        const bin = Math.floor((event.offsetX - geometry.left) / geometry.step);
        if (bin >= 0 && bin < geometry.bins) trigger('bar', {bin, after: share() > 0.5});
      }
      dragging = false;
    });
  };

  // ---- a link that keeps the text to itself: deflated, in the fragment, which no request carries

  const inflate = async (coded) => {
    const bytes = Uint8Array.from(atob(coded.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
    const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate-raw'))
      .pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ''; ;) {
      const {done, value} = await reader.read();
      if (done) return text;
      if ((text += value).length > 4000) return '';
    }
  };
  figs.deflate = async (text) => {
    const stream = new Blob([text.slice(0, 4000)]).stream().pipeThrough(new CompressionStream('deflate-raw'));
    const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
    return btoa(String.fromCharCode(...bytes)).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
  };
  figs.link = (trigger) => {
    const read = async () => {
      const found = location.hash.match(/^#t=([\w-]{1,12000})$/);
      if (!found) return;
      try { const text = await inflate(found[1]); if (text) trigger('link', {text}); } catch { /* not one of ours */ }
    };
    read(); addEventListener('hashchange', read);
  };
})();
