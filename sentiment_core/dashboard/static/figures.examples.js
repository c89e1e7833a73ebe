// Example predictions: what is clicked, there or in another figure, goes into the tab's two hidden boxes.
figs.fill = (id, text) => {
  const box = document.querySelector(`#${id} :is(textarea, input)`);
  if (!box) { setTimeout(() => figs.fill(id, text), 100); return; }  // a tab is built when it is first opened
  box.value = text;
  for (const kind of ['input', 'keypress']) box.dispatchEvent(new Event(kind, {bubbles: true}));  // Gradio's input follows a key
};
// Opens the tab on reviews {show, side, low, high, label}; see ExampleFilter
figs.examine = (asked) => {
  document.querySelector('#tab-examples-button')?.click();
  figs.fill('examples-filter', typeof asked === 'string' ? asked : JSON.stringify(asked));
};
document.addEventListener('click', (event) => {
  const asks = event.target.closest('[data-ask]'), row = event.target.closest('[data-review]');
  if (asks) { event.preventDefault(); figs.examine(asks.dataset.ask); }
  if (!row) return;
  for (const one of document.querySelectorAll('[data-review][aria-current]')) one.removeAttribute('aria-current');
  row.setAttribute('aria-current', 'true');
  figs.fill('opened', row.dataset.review);
  const reader = document.querySelector('#reader');  // on a phone it is below the list
  if (reader.getBoundingClientRect().top > 0.8 * innerHeight) reader.scrollIntoView({behavior: figs.still() ? 'auto' : 'smooth'});
});
