// The Live tab without a server: what Gradio does on the page, of which only the figures' own script is here
(() => {
  const find = (query) => document.querySelector(query), box = find('textarea'), nobody = () => {};
  const note = 'Press the button below: the model comes into this browser first.';
  const asked = {
    opened: () => { box.value = figs.at.text; },
    ask: () => figs.set('local', {text: figs.at.text, run: figs.at.run, trace: {rows: []}, note}),
  };
  document.body.classList.toggle('dark', matchMedia('(prefers-color-scheme: dark)').matches);
  figs.alone = true;  // no server to ask how many wait
  figs.live(find('#answers'), {stored: find('#stored').textContent, value: {text: null}}, nobody, (name) => asked[name]?.());
  figs.trace(find('#trace'), ...figs.shown('trace'));
  figs.dial(find('#dial'), {value: {curve: []}}, nobody, nobody);
  find('#ask').addEventListener('click', () => figs.ask());
  find('#dares').addEventListener('click', ({target}) => { if (target.id) box.value = figs.pick(target.id); });
  find('#copy-link').addEventListener('click', () => figs.copyLink());
})();
