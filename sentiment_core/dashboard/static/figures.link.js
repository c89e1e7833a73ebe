// A link that keeps a text to itself: deflated, in the fragment, which no request carries
(() => {
  const MOST = 4000;
  const through = (given, stream) => new Response(new Blob([given]).stream().pipeThrough(stream));
  const deflate = async (text) => {
    const bytes = await through(text, new CompressionStream('deflate-raw')).arrayBuffer();
    const coded = btoa(String.fromCharCode(...new Uint8Array(bytes)));
    return coded.replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
  };
  const inflate = async (coded) => {
    const bytes = atob(coded.replaceAll('-', '+').replaceAll('_', '/'));
    return through(Uint8Array.from(bytes, (c) => c.charCodeAt(0)), new DecompressionStream('deflate-raw')).text();
  };
  // The text of the address, or of an older link, which had it in the query; '' where there is none that can be read
  figs.linked = async () => {
    const coded = location.hash.match(/^#t=([\w-]{1,24000})$/)?.[1], older = new URL(location).searchParams.get('text');
    return ((coded && await inflate(coded).catch(() => '')) || older || '').slice(0, MOST);
  };
  // The address of what is seen: a sample by its name, another text in the fragment if it is not too long
  figs.link = async () => {
    const url = new URL(location), {text = '', stored} = figs.at;
    const sample = stored?.samples.find((one) => one.text === text);
    const named = sample && sample.id === (url.searchParams.get('review') ?? stored.welcome);
    url.searchParams.delete('text');
    url.hash = named || !text || text.length > MOST ? '' : `t=${await deflate(text)}`;
    return url;
  };
  figs.copyLink = async () => {
    const button = document.querySelector('#copy-link'), url = await figs.link();
    if (figs.at.run) url.searchParams.set('run', figs.at.run);
    try { await navigator.clipboard.writeText(url.href); } catch {  // a frame may be forbidden to
      const area = figs.make(document.body, 'textarea', {}, url.href);
      area.select(); document.execCommand('copy'); area.remove();
    }
    button.textContent = figs.at.text?.length > MOST ? 'Copied without the long text' : 'Copied';
    setTimeout(() => { button.textContent = 'Copy link'; }, 2000);
  };
})();
