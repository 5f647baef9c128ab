// The start: charts and viewers are made when they come near the screen, so that the page opens at once.

const FRACTIONS = { 0.0625: "1/16", 0.125: "⅛", 0.25: "¼", 0.5: "½" };

function makeCurves(box) {
  const curves = page.froc[box.dataset.index];
  const series = curves.arms.map((arm) => ({ ...arm, reference: arm.label === "real", hidden: arm.kind !== "augmentation" }));
  const format = (x) => FRACTIONS[x] ?? shortNumber(x);
  const ticks = [0.0625, 0.125, 0.25, 0.5, 1, 2, 4, 8];
  return new Chart(box, curves.points, series, {
    name: `FROC curves of ${curves.board}`,
    x: { title: "false positives a volume", log: true, ticks, format },
    y: { title: "sensitivity", low: 0, most: 1 },
  });
}

function addScaleChoice(box, options, render) {
  const bar = add(box, "div", { class: "controls" });
  const choice = add(null, "select", {}, add(null, "option", {}, "linear"), add(null, "option", {}, "logarithmic"));
  choice.value = options.y.log ? "logarithmic" : "linear";
  choice.addEventListener("input", () => {
    options.y.log = choice.value !== "linear";
    render();
  });
  add(bar, "label", {}, "Axis ", choice);
}

function makeHistogram(box) {
  const part = page.realism.find((each) => each.board === box.dataset.board).histograms;
  const region = part.regions[box.dataset.part];
  const series = region.series.map((line, k) => ({ ...line, reference: k === 0, hidden: line.label.includes(":") }));
  const options = {
    name: `Grey values, ${region.title}`,
    x: { title: "grey value" },
    y: { title: "share of voxels", log: box.dataset.part === "0", least: 1e-6 }, // air would hide the rest
  };
  let chart = null;
  addScaleChoice(box, options, () => chart.render());
  chart = new Chart(box, part.points, series, options);
  return chart;
}

function makeSpectrum(box) {
  const part = page.realism.find((each) => each.board === box.dataset.board).spectra;
  const series = part.series.map((line, k) => ({ ...line, reference: k === 0, hidden: line.label.includes(":") }));
  return new Chart(box, part.points, series, {
    name: "Power spectra",
    x: { title: "cycles per pixel", log: true, ticks: part.points, format: (x) => `${part.bands[part.points.indexOf(x)]} (${shortNumber(x)})` },
    y: { title: "power", log: true },
  });
}

function makeViewer(box) {
  const { look } = page;
  if (box.dataset.viewer === "layouts") return new Viewer(box, look, look.layouts, null);
  const runs = look.runs.map((run) => ({ ...run, reference: ["chance", "blob", "untrained"].includes(run.label) }));
  runs.sort((a, b) => (b.label === "real") - (a.label === "real"));
  return new Viewer(box, look, look.tests, runs.length ? runs : null);
}

const MAKERS = { froc: makeCurves, histogram: makeHistogram, spectrum: makeSpectrum };

function startLater() {
  const make = (box) => (box.dataset.viewer ? makeViewer(box) : MAKERS[box.dataset.chart](box));
  const boxes = all("[data-chart], [data-viewer]");
  const near = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        make(target);
      }
    },
    { rootMargin: "400px" },
  );
  boxes.forEach((box) => near.observe(box));
  window.addEventListener("beforeprint", () => {
    for (const box of boxes) {
      near.unobserve(box);
      if (!box.querySelector(".plot, .stage")) make(box);
    }
  });
}

startBoards();
startRecords();
startGains();
startFloors();
startLater();
document.documentElement.classList.add("ready");
