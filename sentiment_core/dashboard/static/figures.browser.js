// The same models in the visitor's own browser: a worker, `browser/worker.js` in the folder that `stored.local` names,
// computes what the server would send. Offered where that folder is; what it says is `figs.at.local`.
figs.browser = (element) => {
  const line = element.querySelector('.local'), {at, make} = figs, mega = (bytes) => Math.round(bytes / 1e6);
  const here = () => at.stored.local && {...at.stored.local, base: new URL(at.stored.local.url, document.baseURI)};
  let worker = null, run = null, ready = false;
  const tell = (text, label, act, meter) => {
    line.replaceChildren();
    if (meter !== undefined) make(line, 'progress', {max: 1, value: meter, 'aria-label': 'Download'});
    if (text) make(line, 'span', {}, text);
    if (label) make(line, 'button', {type: 'button'}, label).addEventListener('click', act);
  };
  const offer = (text = '') => tell(text, `Answer in my browser (${mega(here().bytes)} MB, once)`, start);
  const stop = (text) => {
    worker?.terminate();
    worker = null; ready = false;
    figs.set('local', null);
    if (here()) offer(text); else tell('');
  };
  const heard = ({data}) => {
    const {bytes} = here();
    if (data.bytes) {
      loaded += data.bytes;
      const done = loaded >= bytes, text = done ? 'Starting the model…' : `Fetching the model: ${mega(loaded)} of ${mega(bytes)} MB`;
      tell(text, 'Stop', () => stop(), loaded / bytes);
    } else if (data.ready) {
      ready = true;
      tell(`Answers are computed in this browser, on ${data.ready}; no text leaves this machine.`, 'Stop', () => stop());
      if (at.text?.trim()) figs.ask();
    } else if (data.value) figs.set('local', data.value);
    else stop(data.failed);
  };
  let loaded = 0;
  const start = () => {
    loaded = 0; run = at.run;
    try { worker = new Worker(new URL('worker.js', here().base), {type: 'module'}); } catch { stop('This browser cannot run the model.'); return; }
    tell('Fetching the model…', 'Stop', () => stop(), 0);
    worker.onmessage = heard;
    worker.onerror = () => stop('The model could not be started in this browser. Please update it, or try another one.');
  };
  // Whether the text, or its dial, is asked here
  figs.here = (message) => {
    if (ready) worker.postMessage(message);
    return ready;
  };
  figs.wanted = (yes) => line.classList.toggle('wanted', yes && !worker);
  figs.on(() => { if (!worker || run !== at.run) stop(); }, 'run');
};
