() => {
  // What the page shows stands in the address; an empty value leaves it. Runs once the page stands:
  // its tabs report the one they begin with, which must not replace the one in the address.
  window.qUrl = (changes) => {
    const url = new URL(location);
    for (const [key, value] of Object.entries(changes)) {
      if (value) url.searchParams.set(key, value); else url.searchParams.delete(key);
    }
    history.replaceState(null, '', url);
    const tab = changes.tab && document.getElementById(`tab-${changes.tab}-button`);
    tab?.scrollIntoView({block: 'nearest', inline: 'center'});  // a phone's row of tabs is wider than the page
  };
  // Arrow keys move between the tabs.
  document.addEventListener('keydown', (event) => {
    const tabs = [...document.querySelectorAll('.tab-container[role=tablist] button[role=tab]')];
    const at = tabs.indexOf(document.activeElement), step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (at < 0 || !step) return;
    event.preventDefault();
    const next = tabs[(at + step + tabs.length) % tabs.length];
    next.focus(); next.click();
  });
}
