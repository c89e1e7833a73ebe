// The Live tab. What is shown belongs to `figs.at.text` and `figs.at.run`, or is marked as old: of our own samples the stored
// answers, at once; else the live model's when they come. A visitor's score lives in this page and nowhere else.
figs.PAUSE = 600;  // milliseconds without typing
figs.NAMES = {base: 'Base model', fine: 'Fine-tuned'};
figs.WORDS = ['Negative', 'Positive'];
figs.called = (p) => Number(p >= 0.5);
figs.said = (p) => (p < 0.3 || p > 0.7 ? [figs.WORDS[figs.called(p)], '']
  : ['Unsure', `leaning ${figs.WORDS[figs.called(p)].toLowerCase()}`]);

figs.live = (element, props, watch, trigger) => {
  const SHORT = {words: 90, characters: 700}, {at, make, percent, called, WORDS} = figs, judged = new Map();
  const find = (query) => element.querySelector(query);
  let view = null, drawn = '', timer;

  const sample = () => at.stored.samples.find((one) => one.text === at.text);
  const named = (id) => at.stored.samples.find((one) => one.id === id);
  const stored = () => (at.stored.run === at.run && sample()?.base ? {...sample(), run: at.run} : null);
  const answered = () => (props.value.text === at.text && props.value.run === at.run ? {...props.value, label: sample()?.label} : null);
  const current = () => stored() ?? answered();
  const whole = (answer) => (answer?.read ?? (answer ? 1 : 0)) === 1;
  const name = () => `${view.run}\n${view.text}`;

  const card = (actor, answer, label) => {
    const box = find(`.answer.${actor}`);
    box.replaceChildren(); box.title = answer?.detail ?? '';
    const head = make(box, 'h3');
    make(head, 'b', {}, figs.NAMES[actor]);
    if (!answer) {
      make(box, 'div', {class: 'num muted', 'aria-hidden': true}, '–'); make(box, 'p', {class: 'small'}, view?.note ?? at.stored.idle);
      return;
    }
    const {p} = answer, tone = called(p) ? 'positive' : 'negative', [word, leaning] = figs.said(p);
    const more = whole(answer) ? leaning : `${leaning} so far`.trim();
    if (whole(answer) && label != null) make(head, 'span', {class: 'mark'}, called(p) === label ? '✓ right' : '✗ wrong');
    make(make(box, 'div', {class: `num ${leaning ? '' : tone}`}, word), 'span', {class: 'leaning'}, more && ` ${more}`);
    const bar = make(box, 'div', {class: 'bar'});
    make(bar, 'i', {class: tone, style: `left:${100 * Math.min(p, 0.5)}%;width:${Math.max(0.6, 100 * Math.abs(p - 0.5))}%`});
    make(bar, 'b');
    make(box, 'p', {class: 'small'}, `P(positive) = ${percent(p, 1)}${whole(answer) ? '' : ` after reading ${percent(answer.read)}`}`);
  };

  const verdict = (label) => {
    const {base, fine, label: ours} = view, [b, f] = [called(base.p), called(fine.p)];
    const cut = base.cut || fine.cut ? ' The review is longer than the model reads: its middle was left out.' : '';
    const say = figs.said(base.p)[1] || figs.said(fine.p)[1] ? 'lean to' : 'say';
    if (label == null) return (b === f ? `= Both ${say} ${WORDS[f]}.` : '≠ The two disagree.') + cut;
    const truth = `${ours == null ? 'you meant' : 'the true label is'} ${WORDS[label]}.${cut}`;
    if (b === f) return `= ${b === label ? 'Both are right' : ours == null ? 'You fooled both' : 'Both are wrong'}: ${truth}`;
    const [right, wrong] = f === label ? ['fine-tuned', 'base'] : ['base', 'fine-tuned'];
    return `≠ ${ours == null ? `You fooled the ${wrong} model, not the ${right} one` : `Only the ${right} model is right`}: ${truth}`;
  };

  const draw = () => {
    if (!at.stored) return;
    const fresh = current(), old = !fresh && Boolean(view?.base || view?.fine);
    view = fresh ?? view;
    const both = whole(view?.base) && whole(view?.fine), known = view && judged.get(name())?.label, label = view?.label ?? known;
    for (const id of ['answers', 'trace', 'dial']) document.getElementById(id)?.classList.toggle('old', old);
    const state = JSON.stringify([view, label, fresh ? 1 : 0]);
    if (state === drawn) return;
    drawn = state;
    if (both && label != null) judged.set(name(), {label, base: called(view.base.p), fine: called(view.fine.p)});
    card('base', view?.base, label); card('fine', view?.fine, label);
    const told = find('.verdict');
    told.textContent = old ? 'These answers belong to what was there before your change.' : fresh?.warn || (both ? verdict(label) : '');
    told.className = `verdict${both && !old && told.textContent.startsWith('≠') ? ' differ' : ''}${fresh?.warn ? ' warn' : ''}`;
    find('.meant').hidden = !both || old || view.label != null;
    find('.save').hidden = !both || old || !view.trace?.rows.at(-1)?.base;
    for (const button of element.querySelectorAll('.meant button')) button.setAttribute('aria-pressed', Number(button.value) === known);
    const seen = [...judged.values()], right = (actor) => seen.filter((one) => one[actor] === one.label).length;
    find('.score').textContent = seen.length < 2 ? ''
      : `This visit: of ${seen.length} reviews the base model got ${right('base')} right, the fine-tuned one ${right('fine')}.`;
    figs.set('view', view); figs.set('reading', view?.trace);
    if (both && !old) figs.set('pin', {base: view.base.p, fine: view.fine.p});
  };

  const address = async () => history.replaceState(null, '', await figs.link());
  // Asks what is in the box: at once, or after a pause of typing if it is short; what is shown already is not asked again.
  figs.ask = (pause = 0) => {
    clearTimeout(timer);
    const short = at.text.split(/\s+/).length <= SHORT.words && at.text.length <= SHORT.characters;
    if (pause && (!at.text.trim() || !short || (current() && !current().warn))) return;
    timer = setTimeout(() => { address(); if (!stored() && at.ready) trigger('ask'); }, pause);
  };
  figs.pick = (id) => {
    window.qUrl({review: id}); figs.set('text', named(id).text); figs.ask();
    return at.text;
  };
  figs.ready = () => { at.ready = true; figs.set('run', at.stored.run); if (!current()) figs.ask(); };
  const open = async () => {
    const welcome = named(at.stored.welcome)?.text ?? '', sent = named(new URL(location).searchParams.get('review'))?.text;
    const text = await figs.linked() || sent || welcome, box = document.querySelector('#review textarea')?.value ?? welcome;
    figs.set('text', at.text === undefined && box !== welcome ? box : text);  // somebody types before this script runs
    trigger('opened'); address();
    if (at.ready && !current()) figs.ask();
  };
  element.addEventListener('click', ({target}) => {
    if (target.matches('.meant button')) { judged.set(name(), {label: Number(target.value)}); draw(); }
    if (target.matches('.save')) figs.picture(view);
  });
  document.addEventListener('input', ({target}) => {
    if (target.closest('#review')) { figs.set('text', target.value); figs.ask(figs.PAUSE); }
  });
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && event.target.closest('#review')) { event.preventDefault(); figs.ask(); }
  });
  addEventListener('hashchange', open);
  watch(['value'], draw);
  figs.on((key) => { draw(); if (key === 'stored' && at.text === undefined) open(); });
  if (at.stored && at.text === undefined) open();
};

// The dial of what is shown; its own value counts while that is of the same text and ends
figs.turned = (element, props, watch, turn) => {
  const same = (a, b) => a && b && a.text === b.text && a.curve[0] === b.curve[0] && a.curve.at(-1) === b.curve.at(-1);
  const value = () => (same(props.value, figs.at.view?.dial) ? props.value : figs.at.view?.dial);
  figs.dial(element, {get value() { return value(); }}, (keys, draw) => {
    watch(keys, draw); figs.on((key) => key === 'view' && draw());
  }, turn);
};

// The stored answers of the run that is shown: {run, samples: [{id, text, label, base, fine, trace, dial}], welcome, idle}
figs.stored = (props, watch) => {
  const take = () => {
    const first = !figs.at.stored;
    figs.at.run ??= new URL(location).searchParams.get('run') || props.value.run;
    figs.at.ready ??= figs.at.run === props.value.run;  // else the page is about to show the run of its address
    figs.set('stored', props.value);
    if (!first) { figs.set('run', props.value.run); figs.ask(figs.PAUSE); }
  };
  watch(['value'], take); take();
};
