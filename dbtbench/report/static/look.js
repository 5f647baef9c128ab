// The viewer: cases, slices, window, boxes and detections, by wheel, keys, touch, slider and dragging.

const WINDOW = { centre: 0.5, span: 1 };

class Viewer {
  constructor(box, look, cases, runs) {
    Object.assign(this, { box, look, cases, runs, pictures: [] });
    this.state = { ...WINDOW, number: 0, slice: 0, boxes: true, least: 0, drag: matchMedia("(pointer: coarse)").matches ? "slices" : "window" };
    this.hiddenSets = new Set();
    this.addControls();
    this.stage = add(box, "div", { class: "stage", role: "group", "aria-label": "Pictures" });
    this.status = add(box, "output", { class: "small", "aria-live": "polite" });
    this.stage.addEventListener("wheel", (event) => this.turn(event), { passive: false });
    this.stage.addEventListener("keydown", (event) => this.press(event));
    this.stage.addEventListener("pointerdown", (event) => this.grab(event));
    this.choose(0);
  }

  addControls() {
    const bar = add(this.box, "div", { class: "controls" });
    const select = (title, options, change) => {
      const made = add(null, "select");
      options.forEach((text, k) => add(made, "option", { value: String(k) }, text));
      made.addEventListener("input", () => change(Number(made.value)));
      add(bar, "label", {}, `${title} `, made);
      return made;
    };
    const button = (text, title, act) => {
      const made = add(bar, "button", { type: "button", "aria-label": title }, text);
      made.addEventListener("click", act);
    };
    this.caseChoice = select("Case", this.cases.map((c) => c.title), (k) => this.choose(k));
    button("‹", "Previous case", () => this.choose(this.state.number - 1));
    button("›", "Next case", () => this.choose(this.state.number + 1));
    const slider = (title, attributes, change) => {
      const made = add(null, "input", { type: "range", ...attributes });
      made.addEventListener("input", () => change(Number(made.value)));
      add(bar, "label", {}, `${title} `, made);
      return made;
    };
    this.slider = slider("Slice", { min: "0", max: String(this.look.grid[0] - 1), step: "1" }, (k) => this.move(k));
    this.boxesChoice = add(null, "input", { type: "checkbox" });
    this.boxesChoice.checked = true;
    this.boxesChoice.addEventListener("change", () => this.set({ boxes: this.boxesChoice.checked }));
    add(bar, "label", {}, this.boxesChoice, " boxes");
    const drag = select("Drag", ["window and level", "slices"], (k) => this.set({ drag: k ? "slices" : "window" }));
    drag.value = this.state.drag === "slices" ? "1" : "0";
    button("Reset window", "Window as stored", () => this.set(WINDOW));
    if (this.runs) {
      const names = this.runs.map((run) => `${run.label}, seed ${run.seed}`);
      const other = this.runs.findIndex((run) => run.label !== this.runs[0].label && !run.reference);
      this.compared = [0, other < 0 ? Math.min(1, names.length - 1) : other];
      ["Run", "beside"].forEach((title, side) => {
        const made = select(title, names, (k) => {
          this.compared[side] = k;
          this.choose(this.state.number);
        });
        made.value = String(this.compared[side]);
      });
      slider("Score at least", { min: "0", max: "1", step: "0.01", value: "0" }, (k) => this.set({ least: k }));
    } else {
      const names = [...new Set(this.cases.flatMap((c) => c.volumes.map((v) => v.name)))];
      const sets = add(this.box, "fieldset", { class: "columns" }, add(null, "legend", {}, "Side by side"));
      names.forEach((name, k) => {
        const made = add(null, "input", { type: "checkbox" });
        made.checked = k < 6;
        if (!made.checked) this.hiddenSets.add(name);
        made.addEventListener("change", () => {
          if (made.checked) this.hiddenSets.delete(name);
          else this.hiddenSets.add(name);
          this.choose(this.state.number, this.state.slice);
        });
        add(sets, "label", {}, made, ` ${name}`);
      });
    }
  }

  get volumes() {
    const volumes = this.cases[this.state.number].volumes;
    if (!this.runs) return volumes.filter((volume) => !this.hiddenSets.has(volume.name)).map((volume) => [volume, null]);
    return this.compared.map((k) => {
      const run = this.runs[k];
      return [{ ...volumes[0], name: `${run.label}, seed ${run.seed}` }, run.found[this.state.number]];
    });
  }

  choose(number, slice = null) {
    this.state.number = (number + this.cases.length) % this.cases.length;
    this.caseChoice.value = String(this.state.number);
    const volumes = this.volumes;
    while (this.pictures.length > volumes.length) this.pictures.pop().figure.remove();
    while (this.pictures.length < volumes.length) this.pictures.push(new Picture(this.stage, this.look));
    const boxes = this.cases[this.state.number].volumes.flatMap((volume) => volume.boxes);
    const middle = boxes.length ? (boxes[0][0] + boxes[0][3]) / 2 : this.look.grid[0] / 2;
    this.move(slice ?? Math.floor(middle));
  }

  set(changes) {
    Object.assign(this.state, changes);
    this.stage.classList.toggle("swipe", this.state.drag === "slices");
    this.boxesChoice.checked = this.state.boxes;
    this.slider.value = String(this.state.slice);
    const volumes = this.volumes;
    this.pictures.forEach((picture, k) => picture.show(volumes[k][0], this.state, volumes[k][1]));
    const { slice, centre, span } = this.state;
    this.slider.setAttribute("aria-valuetext", `slice ${slice + 1} of ${this.look.grid[0]}`);
    this.status.textContent = `slice ${slice + 1} of ${this.look.grid[0]}, window ${span.toFixed(2)}, level ${centre.toFixed(2)}`;
  }

  move(slice) {
    this.set({ slice: clamp(slice, 0, this.look.grid[0] - 1) });
  }

  turn(event) {
    if (!(event.target instanceof HTMLCanvasElement) || event.ctrlKey) return;
    const next = this.state.slice + Math.sign(event.deltaY);
    if (next < 0 || next >= this.look.grid[0]) return; // at the ends the page scrolls on
    event.preventDefault();
    this.move(next);
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { slice, number, span, boxes } = this.state;
    const act = {
      ArrowUp: () => this.move(slice - 1),
      ArrowDown: () => this.move(slice + 1),
      PageUp: () => this.move(slice - 4),
      PageDown: () => this.move(slice + 4),
      Home: () => this.move(0),
      End: () => this.move(this.look.grid[0] - 1),
      ArrowLeft: () => this.choose(number - 1),
      ArrowRight: () => this.choose(number + 1),
      b: () => this.set({ boxes: !boxes }),
      "+": () => this.set({ span: clamp(span * 1.15, 0.02, 2) }),
      "-": () => this.set({ span: clamp(span / 1.15, 0.02, 2) }),
      0: () => this.set(WINDOW),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  grab(event) {
    if (!(event.target instanceof HTMLCanvasElement) || event.button > 0) return;
    const canvas = event.target;
    const from = { x: event.clientX, y: event.clientY, ...this.state };
    const size = canvas.clientWidth;
    canvas.setPointerCapture(event.pointerId);
    const follow = (moved) => {
      const [dx, dy] = [(moved.clientX - from.x) / size, (moved.clientY - from.y) / size];
      if (this.state.drag === "slices") {
        this.move(from.slice + Math.round(dx * Math.max(this.look.grid[0], 12)));
      } else {
        this.set({ span: clamp(from.span * 4 ** dx, 0.02, 2), centre: clamp(from.centre + dy, 0, 1) });
      }
    };
    const release = () => {
      canvas.removeEventListener("pointermove", follow);
      canvas.removeEventListener("pointerup", release);
      canvas.removeEventListener("pointercancel", release);
    };
    canvas.addEventListener("pointermove", follow);
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
  }
}
