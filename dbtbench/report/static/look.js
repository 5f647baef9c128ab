// The viewer: a stage with cases, boxes and detections, and its controls.

class Viewer extends Stage {
  constructor(box, look, cases, runs) {
    super(look);
    Object.assign(this, { box, cases, runs });
    Object.assign(this.state, { number: 0, boxes: true, least: 0 });
    this.hiddenSets = new Set();
    this.addControls();
    box.append(this.stage);
    this.status = add(box, "output", { class: "small", "aria-live": "polite" });
    this.stage.addEventListener("keydown", (event) => this.press(event));
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
    const { centre, span } = this.state;
    this.slider.setAttribute("aria-valuetext", this.place);
    this.status.textContent = `${this.place}, window ${span.toFixed(2)}, level ${centre.toFixed(2)}`;
  }

  get keys() {
    const { number, boxes } = this.state;
    return {
      ...super.keys,
      ArrowLeft: () => this.choose(number - 1),
      ArrowRight: () => this.choose(number + 1),
      b: () => this.set({ boxes: !boxes }),
    };
  }
}
