// The Live tab. What is shown belongs to `figs.at.text` and `figs.at.run`, or is marked as old: of our own samples the
// stored answers, at once; else the live model's when they come. A visitor's score lives in this page and nowhere else.
// props.stored, as JSON text, for Gradio walks through everything else: {run, noun (what texts are called), samples: [{id, text, label, base, fine, trace, dial}], welcome, idle}
figs.PAUSE = 600;  // milliseconds without typing
figs.LOST = 8000;  // milliseconds without a word of the queue, which speaks at once
figs.NAMES = {base: 'Base model', fine: 'Fine-tuned'};
figs.WORDS = ['Negative', 'Positive'];
figs.called = (p) => Number(p >= 0.5);
figs.worded = (said) => (figs.at.stored?.noun === 'texts' ? said.replaceAll('review', 'text') : said);
// `at.sure`: the certainty that an answer of the fine-tuned model needs, by the visitor's target accuracy
figs.said = (p, actor) => {
  const word = figs.WORDS[figs.called(p)], asked = actor === 'fine' ? figs.at.sure : 0;
  return Math.max(p, 1 - p) >= (asked || 0.7) ? [word, ''] : [asked ? 'Not sure' : 'Unsure', `leaning ${word.toLowerCase()}`];
};

figs.live = (element, props, watch, trigger) => {
  const SHORT = {words: 90, characters: 700}, {at, make, percent, called, WORDS} = figs, judged = new Map();
  const find = (query) => element.querySelector(query), named = (id) => at.stored.samples.find((one) => one.id === id);
  let view = null, heard = null, drawn = '', timer;
  at.stored = JSON.parse(props.stored);
  at.run = new URL(location).searchParams.get('run') || at.stored.run;
  at.ready = at.run === at.stored.run;  // else the page is about to show the run of its address

  const asked = (one) => one && one.text === at.text && one.run === at.run;
  const current = () => {
    const sample = at.stored.samples.find((one) => one.text === at.text);
    if (sample?.base && at.stored.run === at.run) return {...sample, run: at.run};
    const own = [at.local, heard].find(asked);
    return own ? {...own, label: sample?.label} : null;
  };
  const whole = (answer) => (answer ? (answer.read ?? 1) === 1 : false);
  const name = () => `${view.run}\n${view.text}`;

  const card = (actor, label) => {
    const box = find(`.answer.${actor}`), answer = view?.[actor];
    const said = (text) => make(box, 'p', {class: 'small'}, text);
    box.replaceChildren(); box.title = answer?.detail ?? '';
    const head = make(box, 'h3');
    make(head, 'b', {}, figs.NAMES[actor]);
    if (!answer) {
      make(box, 'div', {class: 'num muted', 'aria-hidden': true}, '–'); said(figs.worded(view?.note ?? at.stored.idle));
      return;
    }
    const {p, read} = answer, tone = called(p) ? 'positive' : 'negative', [word, leaning] = figs.said(p, actor);
    const mark = called(p) === label ? '✓ right' : '✗ wrong';
    if (whole(answer) && label != null && word !== 'Not sure') make(head, 'span', {class: 'mark'}, mark);
    const number = make(box, 'div', {class: `num ${leaning ? '' : tone}`}, word);
    make(number, 'span', {class: 'leaning'}, [leaning, whole(answer) ? '' : 'so far'].join(' ').trim());
    const bar = make(box, 'div', {class: 'bar'}), width = Math.max(0.6, 100 * Math.abs(p - 0.5));
    make(bar, 'i', {class: tone, style: `left:${100 * Math.min(p, 0.5)}%;width:${width}%`}); make(bar, 'b');
    said(`P(positive) = ${percent(p, 1)}${whole(answer) ? '' : ` after reading ${percent(read)}`}`);
    if (answer.about) said(answer.about);
    if (word === 'Not sure') said(`An answer needs ${percent(at.sure, 1)}: from there on its validation answers met the target.`);
  };

  const verdict = (label) => {
    const {base, fine, label: known} = view, own = known == null, [b, f] = [called(base.p), called(fine.p)];
    const cut = base.cut || fine.cut ? ' The review is longer than the model reads: its middle was left out.' : '';
    const say = figs.said(base.p)[1] || figs.said(fine.p, 'fine')[1] ? 'lean to' : 'say';
    if (label == null) return (b === f ? `= Both ${say} ${WORDS[f]}.` : '≠ The two disagree.') + cut;
    const truth = `${own ? 'you meant' : 'the true label is'} ${WORDS[label]}.${cut}`;
    if (b === f && b === label) return `= Both are right: ${truth}`;
    if (b === f) return `= ${own ? 'You fooled both' : 'Both are wrong'}: ${truth}`;
    const [right, wrong] = f === label ? ['fine-tuned', 'base'] : ['base', 'fine-tuned'];
    const who = own ? `You fooled the ${wrong} model, not the ${right} one` : `Only the ${right} model is right`;
    return `≠ ${who}: ${truth}`;
  };

  const draw = () => {
    const fresh = current(), old = !fresh && Boolean(view?.base || view?.fine);
    view = fresh ?? view;
    const both = whole(view?.base) && whole(view?.fine);
    const meant = view && judged.get(name())?.label, label = view?.label ?? meant;
    for (const id of ['answers', 'trace', 'dial']) document.getElementById(id)?.classList.toggle('old', old);
    const state = JSON.stringify([view, label, old, at.sure, at.stored.noun]);
    if (state === drawn) return;
    drawn = state;
    if (both && label != null) judged.set(name(), {label, base: called(view.base.p), fine: called(view.fine.p)});
    for (const actor of ['base', 'fine']) card(actor, label);
    const settled = both && !old, told = find('.verdict');
    if (old) told.textContent = 'These answers belong to what was there before your change.';
    else told.textContent = figs.worded(view?.warn || (both ? verdict(label) : ''));
    told.classList.toggle('differ', settled && told.textContent.startsWith('≠'));
    told.classList.toggle('warn', !old && Boolean(view?.warn));
    find('.meant').hidden = !settled || view.label != null;
    find('.save').hidden = !settled || !view.trace?.rows.at(-1)?.base;
    for (const button of element.querySelectorAll('.meant button')) {
      button.setAttribute('aria-pressed', Number(button.value) === meant);
    }
    const seen = [...judged.values()], right = (actor) => seen.filter((one) => one[actor] === one.label).length;
    find('.score').textContent = seen.length < 2 ? '' : `This visit: of ${seen.length} ${at.stored.noun} the base model got `
      + `${right('base')} right, the fine-tuned one ${right('fine')}.`;
    figs.set('view', view);
    if (settled) figs.set('pin', {base: view.base.p, fine: view.fine.p});
  };

  const wait = async () => (await fetch(new URL('queue', document.baseURI), {signal: AbortSignal.timeout(2000)})).json();
  const pending = () => view?.note && !view.warn && !whole(view.base);
  const queue = async () => {
    if (document.hidden) return;
    const {waiting, seconds} = await wait(), mine = pending(), who = waiting === 1 ? 'One visitor waits' : `${waiting} visitors wait`;
    figs.offer(seconds > 10 || /is loading/.test(view?.note) || Boolean(view?.warn));
    find('.queue').textContent = waiting && !mine ? `${who} for answers: yours would begin in about ${Math.ceil(seconds)} s.` : '';
  };

  const address = async () => history.replaceState(null, '', await figs.link());
  // A question that comes just as the one before ends can be lost with its stream: then nothing at all is heard of it
  const send = async (again = 3) => {
    if (!at.ready || current()?.id || figs.here({ask: at.text})) return;
    const {text, run} = at, {full} = pending() ? {} : await wait().catch(() => ({}));
    if (text !== at.text || run !== at.run) return;  // a newer question has been sent
    if (full) { heard = {text, run, note: 'No answer.', warn: full}; draw(); return; }  // costs a busy server next to nothing
    trigger('ask');
    timer = setTimeout(() => { if (again && !current()) send(again - 1); }, figs.LOST);
  };
  // Asks what is in the box: at once, or after a pause of typing if it is short and not answered yet
  figs.ask = (pause = 0) => {
    clearTimeout(timer);
    const short = at.text.split(/\s+/).length <= SHORT.words && at.text.length <= SHORT.characters;
    if (pause && (!at.text.trim() || !short || (current() && !current().warn))) return;
    timer = setTimeout(() => { address(); send(); }, pause);
  };
  figs.pick = (id) => {
    if (named(id)) { window.qUrl({review: id}); figs.set('text', named(id).text); figs.ask(); }  // the menu's title is none
    return at.text;
  };
  figs.ready = () => { at.ready = true; figs.set('run', at.stored.run); if (!current()) figs.ask(); };
  const open = async () => {
    const welcome = named(at.stored.welcome)?.text ?? '', box = document.querySelector('#review textarea')?.value;
    const text = await figs.linked() || named(new URL(location).searchParams.get('review'))?.text || welcome;
    const typed = at.text === undefined && (box ?? welcome) !== welcome;  // before this script ran
    figs.set('text', typed ? box : text);
    trigger('opened'); address();
    if (at.ready && !current()) figs.ask();
  };
  element.addEventListener('click', ({target}) => {
    if (target.matches('.meant button')) { judged.set(name(), {label: Number(target.value)}); draw(); }
    if (target.matches('.save')) figs.pictureOf(view);
  });
  document.addEventListener('input', ({target}) => {
    if (target.closest('#review')) { figs.set('text', target.value); figs.ask(figs.PAUSE); }
  });
  document.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey) || !event.target.closest('#review')) return;
    event.preventDefault(); figs.ask();
  });
  addEventListener('hashchange', open);
  // The last word on an older question may come after the first on a newer one; the queue's objects change in place
  watch(['value'], () => { if (asked(props.value)) heard = JSON.parse(JSON.stringify(props.value)); draw(); });
  watch(['stored'], () => { at.stored = JSON.parse(props.stored); figs.set('run', at.stored.run); figs.offer(); draw(); figs.ask(figs.PAUSE); });
  figs.browser(element); figs.on(draw); open();
  if (!figs.alone) setInterval(() => queue().catch(() => {}), 10_000);
};
