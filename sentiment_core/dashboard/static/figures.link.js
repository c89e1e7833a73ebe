// A link that keeps a text to itself: deflated, in the fragment, which no request carries
(() => {
  const MOST = 4000;
  const deflate = async (text) => {
    const bytes = await new Response(new Blob([text]).stream().pipeThrough(new CompressionStream('deflate-raw'))).arrayBuffer();
    return btoa(Array.from(new Uint8Array(bytes), (byte) => String.fromCharCode(byte)).join('')).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
  };
  const inflate = async (coded) => {
    const bytes = Uint8Array.from(atob(coded.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
    const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate-raw')).pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ''; ;) {
      const {done, value} = await reader.read();
      if (done || text.length > MOST) return text.slice(0, MOST);
      text += value;
    }
  };
  // The text of the address, or of an older link, which had it in the query; '' where there is none that can be read
  figs.linked = async () => {
    const coded = location.hash.match(/^#t=([\w-]{1,24000})$/)?.[1];
    try { return await inflate(coded); } catch { return new URL(location).searchParams.get('text')?.slice(0, MOST) ?? ''; }
  };
  // The address of what is seen: a sample by its name, another text in the fragment if it is not too long
  figs.link = async () => {
    const url = new URL(location), {text = '', stored} = figs.at, sample = stored?.samples.find((one) => one.text === text);
    const named = sample && sample.id === (url.searchParams.get('review') ?? stored.welcome);
    url.searchParams.delete('text'); url.hash = named || !text || text.length > MOST ? '' : `t=${await deflate(text)}`;
    return url;
  };
  figs.copyLink = async (button = document.querySelector('#copy-link'), said = button.textContent) => {
    const url = await figs.link();
    if (figs.at.run) url.searchParams.set('run', figs.at.run);
    try { await navigator.clipboard.writeText(url.href); } catch {  // a frame may be forbidden to
      const area = figs.make(document.body, 'textarea'); area.value = url.href; area.select(); document.execCommand('copy'); area.remove();
    }
    button.textContent = figs.at.text?.length > MOST ? 'Copied without the long text' : 'Copied';
    setTimeout(() => { button.textContent = said; }, 2000);
  };
})();
