// A chart of lines with bands, on linear or logarithmic axes; the pointer and the arrow keys read values off.

const MARGIN = { left: 54, right: 14, top: 12, bottom: 44 };
const SHOWN_AT_FIRST = 4;

function shortNumber(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 0.001 && size < 10000 ? String(Number(value.toPrecision(3))) : value.toExponential(1);
}

function makeScale(low, high, from, to, log) {
  const turn = log ? Math.log10 : (x) => x;
  const [a, b] = [turn(low), turn(high)];
  return (value) => from + ((turn(value) - a) / (b - a || 1)) * (to - from);
}

function ticksOf(low, high, log, wanted) {
  if (log) {
    const found = [];
    for (let e = Math.ceil(Math.log10(low) - 1e-9); e <= Math.log10(high) + 1e-9; e += 1) found.push(10 ** e);
    const step = Math.max(1, Math.ceil(found.length / wanted));
    return found.filter((_, k) => k % step === 0);
  }
  const raw = (high - low) / wanted;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * unit).find((s) => s >= raw);
  const found = [];
  for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + step / 1e6; t += step) found.push(Number(t.toPrecision(6)));
  return found;
}

class Chart {
  // box: an element; points: x of each value; series: {label, value, low?, high?, reference?, hidden?};
  // options: {name, x: {title, log, ticks, format}, y: {title, log, low, least, most}, format}
  constructor(box, points, series, options) {
    Object.assign(this, { box, points, series, options, at: null });
    this.colours = new Map();
    let colour = 0;
    for (const line of series) this.colours.set(line, line.reference ? "reference" : `s${colour++ % 12}${colour > 12 ? " again" : ""}`);
    let shown = 0;
    for (const line of series) line.shown = Boolean(line.reference) || (!line.hidden && shown++ < SHOWN_AT_FIRST);
    this.legend = add(box, "fieldset", { class: "legend" }, add(null, "legend", { class: "hidden" }, "Lines shown"));
    for (const line of series) this.addChoice(line);
    this.svg = draw(null, "svg", { class: "plot", tabindex: "0", role: "img" });
    this.svg.setAttribute("aria-label", `${options.name}. The arrow keys read values off; they stand below.`);
    this.frame = add(box, "div", { class: "frame" }, this.svg);
    this.readout = add(box, "div", { class: "readout" });
    this.svg.addEventListener("pointermove", (event) => this.follow(event));
    this.svg.addEventListener("pointerleave", () => this.read(null));
    this.svg.addEventListener("keydown", (event) => this.step(event));
    new ResizeObserver(() => this.render()).observe(this.frame);
    this.render();
  }

  addChoice(line) {
    const box = add(null, "input", { type: "checkbox" });
    box.checked = line.shown;
    box.addEventListener("change", () => {
      line.shown = box.checked;
      this.render();
    });
    add(this.legend, "label", {}, box, add(null, "span", { class: `swatch ${this.colours.get(line)}` }), line.label);
  }

  limits() {
    const { y } = this.options;
    const every = this.series.filter((s) => s.shown).flatMap((s) => [...s.value, ...(s.low || []), ...(s.high || [])]);
    const usable = every.filter((v) => v !== null && Number.isFinite(v) && (!y.log || v > 0));
    const low = y.low ?? (y.log ? Math.max(Math.min(...usable), y.least || 0) : Math.min(0, ...usable));
    const high = Math.min(Math.max(...usable) * (y.log ? 1.3 : 1.05), y.most ?? Infinity);
    return usable.length && high > low ? [low, high] : [y.log ? 0.001 : 0, 1];
  }

  render() {
    const width = Math.max(260, Math.round(this.frame.clientWidth));
    const height = Math.round(clamp(width * 0.5, 230, 430));
    const { x, y } = this.options;
    const [low, high] = this.limits();
    const first = this.points[0];
    const last = this.points[this.points.length - 1];
    this.x = makeScale(first, last, MARGIN.left, width - MARGIN.right, x.log);
    this.y = makeScale(low, high, height - MARGIN.bottom, MARGIN.top, y.log);
    this.height = height;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("height", height);
    this.svg.replaceChildren();
    const bottom = height - MARGIN.bottom;
    const steps = x.ticks ? x.ticks.filter((_, k) => width > 480 || k % 2 === 0) : ticksOf(first, last, x.log, width / 110);
    for (const tick of steps) {
      const at = this.x(tick);
      draw(this.svg, "line", { class: "grid", x1: at, x2: at, y1: MARGIN.top, y2: bottom });
      const text = (x.format || shortNumber)(tick);
      const reach = text.length * 3.5; // half its width, so that it stays inside
      draw(this.svg, "text", { x: clamp(at, reach, width - reach), y: bottom + 17, "text-anchor": "middle" }, text);
    }
    for (const tick of ticksOf(low, high, y.log, 5)) {
      draw(this.svg, "line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: this.y(tick), y2: this.y(tick) });
      draw(this.svg, "text", { x: MARGIN.left - 6, y: this.y(tick) + 4, "text-anchor": "end" }, shortNumber(tick));
    }
    draw(this.svg, "text", { class: "title", x: (MARGIN.left + width - MARGIN.right) / 2, y: height - 6, "text-anchor": "middle" }, x.title);
    const middle = (MARGIN.top + bottom) / 2;
    draw(this.svg, "text", { class: "title", x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, y.title);
    const shown = this.series.filter((line) => line.shown);
    for (const line of shown) if (line.low) this.drawBand(line, low);
    for (const line of shown) this.drawLine(line, low);
    this.cursor = draw(this.svg, "line", { class: "cursor", y1: MARGIN.top, y2: bottom, visibility: "hidden" });
    this.read(this.at);
  }

  path(values, low, back = false) {
    const least = this.options.y.log ? low : -Infinity;
    const parts = values.map((v, k) => (v === null ? null : [this.x(this.points[k]), this.y(Math.max(v, least))])).filter(Boolean);
    if (back) parts.reverse();
    return parts.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" ");
  }

  drawBand(line, low) {
    const points = `${this.path(line.high, low)} ${this.path(line.low, low, true)}`;
    draw(this.svg, "polygon", { class: `band ${this.colours.get(line)}`, points });
  }

  drawLine(line, low) {
    draw(this.svg, "polyline", { class: `curve ${this.colours.get(line)}`, points: this.path(line.value, low) });
  }

  follow(event) {
    const box = this.svg.getBoundingClientRect();
    const at = event.clientX - box.left;
    let best = 0;
    this.points.forEach((point, k) => {
      if (Math.abs(this.x(point) - at) < Math.abs(this.x(this.points[best]) - at)) best = k;
    });
    this.readout.removeAttribute("aria-live");
    this.read(best);
  }

  step(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -5, PageDown: 5, Home: -Infinity, End: Infinity };
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.readout.setAttribute("aria-live", "polite");
    this.read(clamp((this.at ?? 0) + moves[event.key], 0, this.points.length - 1));
  }

  read(at) {
    this.at = at;
    this.readout.replaceChildren();
    if (at === null) {
      this.cursor.setAttribute("visibility", "hidden");
      add(this.readout, "p", { class: "small" }, "Point at the chart to read values off.");
      return;
    }
    const place = this.x(this.points[at]);
    this.cursor.setAttribute("x1", place);
    this.cursor.setAttribute("x2", place);
    this.cursor.setAttribute("visibility", "visible");
    const form = this.options.x.format || shortNumber;
    add(this.readout, "p", { class: "small" }, `${this.options.x.title}: ${form(this.points[at])}`);
    const list = add(this.readout, "ul");
    const shown = this.series.filter((line) => line.shown);
    shown.sort((a, b) => (b.value[at] ?? -Infinity) - (a.value[at] ?? -Infinity));
    for (const line of shown) {
      const band = line.low ? ` [${shortNumber(line.low[at])}, ${shortNumber(line.high[at])}]` : "";
      add(list, "li", {}, add(null, "span", { class: `swatch ${this.colours.get(line)}` }), `${line.label} ${shortNumber(line.value[at])}${band}`);
    }
  }
}
