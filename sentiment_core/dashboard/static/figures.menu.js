// The "⋯" of a figure: its picture as a file
figs.save = (canvas, download) => Object.assign(document.createElement('a'), {href: canvas.toDataURL(), download}).click();
figs.download = async (figure, format, filename) => {
  const plot = figure.querySelector('.js-plotly-plot'), canvas = figure.querySelector('canvas');
  if (!plot) { figs.save(canvas, `${filename}.${format}`); return; }
  const layout = {...plot.layout, paper_bgcolor: '#ffffff'}, {clientWidth: width, clientHeight: height} = plot;
  await window.Plotly.downloadImage({data: plot.data, layout}, {format, filename, width, height, scale: 2});
};
document.addEventListener('click', (event) => {
  const button = event.target.closest('[data-picture]'), {picture, name} = button?.dataset ?? {};
  if (button) figs.download(button.closest('.figure'), picture, name);
});
