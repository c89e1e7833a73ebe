() => {
  // What the page shows stands in the address; an empty value leaves it.
  window.qUrl = (changes) => {
    const url = new URL(window.location);
    for (const [key, value] of Object.entries(changes)) {
      if (value === null || value === undefined || value === '') url.searchParams.delete(key);
      else url.searchParams.set(key, value);
    }
    window.history.replaceState(null, '', url);
  };
  window.qTheme = () => {
    const dark = document.body.classList.toggle('dark');
    window.qUrl({__theme: dark ? 'dark' : 'light'});
    return [];
  };
  // Arrow keys move between the tabs.
  document.addEventListener('keydown', (event) => {
    const tabs = [...document.querySelectorAll('.tab-container[role=tablist] button[role=tab]')];
    const at = tabs.indexOf(document.activeElement);
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (at < 0 || !step) return;
    event.preventDefault();
    const next = tabs[(at + step + tabs.length) % tabs.length];
    next.focus(); next.click();
  });
}
