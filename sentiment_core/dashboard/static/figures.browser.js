// The same models in the visitor's own browser: a worker, `browser/worker.js` in the folder that `stored.local` names,
// computes what the server would send. Offered where that folder is; what it says is `figs.at.local`.
figs.browser = (element) => {
  const line = element.querySelector('.local'), {at, make} = figs, mega = (bytes) => Math.round(bytes / 1e6);
  const TOO_OLD = 'The model could not be started in this browser. Please update it, or try another one.';
  let worker = null, run = null, ready = false, loaded = 0;
  const tell = (text, label, act) => {
    line.replaceChildren();
    if (text) make(line, 'span', {}, text);
    if (label) make(line, 'button', {type: 'button'}, label).addEventListener('click', act);
  };
  const stop = (text = '') => {
    const {local} = at.stored;
    worker?.terminate();
    worker = null; ready = false;
    figs.set('local', null);
    if (local) tell(text, `Answer in my browser (${mega(local.bytes)} MB, once)`, start); else tell('');
  };
  const heard = ({data: {bytes, ready: where, value, failed}}) => {
    if (bytes) {
      loaded += bytes;
      line.querySelector('progress').value = loaded;
      line.querySelector('.meter').textContent = `${mega(loaded)} of ${mega(at.stored.local.bytes)} MB`;
    } else if (where) {
      ready = true;
      tell(`Answers are computed in this browser, on ${where}; no text leaves this machine.`, 'Stop', () => stop());
      if (at.text?.trim()) figs.ask();
    } else if (value) figs.set('local', value); else stop(failed);
  };
  const start = () => {
    const {url, bytes} = at.stored.local;
    loaded = 0; run = at.run;
    try { worker = new Worker(new URL('worker.js', new URL(url, document.baseURI)), {type: 'module'}); } catch { stop(TOO_OLD); return; }
    tell('Fetching and starting the model…', 'Stop', () => stop());
    make(line, 'progress', {max: bytes, value: 0, 'aria-label': 'Fetched'}); make(line, 'span', {class: 'meter', 'aria-hidden': true});
    worker.onmessage = heard;
    worker.onerror = () => stop(TOO_OLD);
  };
  // Whether the text, or its dial, is asked here
  figs.here = (message) => { if (ready) worker.postMessage(message); return ready; };
  figs.offer = (wanted) => {
    if (wanted === undefined && (!worker || run !== at.run)) stop();
    line.classList.toggle('wanted', Boolean(wanted) && !worker);
  };
  figs.on(() => figs.offer(), 'run');
};
