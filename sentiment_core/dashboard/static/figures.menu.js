// The "⋯" of a figure: its picture as a file
figs.save = (canvas, download) => Object.assign(document.createElement('a'), {href: canvas.toDataURL(), download}).click();
document.addEventListener('click', (event) => {
  const button = event.target.closest('[data-picture]'), figure = button?.closest('.figure');
  if (!figure) return;
  const {picture: format, name: filename} = button.dataset, plot = figure.querySelector('.js-plotly-plot');
  if (!plot) { figs.save(figure.querySelector('canvas'), `${filename}.${format}`); return; }
  const {data, layout: {annotations = [], ...layout}, clientWidth: width, clientHeight: height} = plot;
  const shown = annotations.filter((_, i) => plot.querySelector(`.annotation[data-index="${i}"] text`)?.getClientRects().length);
  const picture = {data, layout: {...layout, annotations: shown, paper_bgcolor: '#ffffff'}};
  window.Plotly.downloadImage(picture, {format, filename, width, height, scale: 2});
});
