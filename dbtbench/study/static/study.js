// The study: cases one after the other, timed; answers are kept in the browser and saved as CSV.

const ANSWERS = {
  "2afc": [["left", "Left is real"], ["right", "Right is real"]],
  rating: [["1", "surely synthetic"], ["2", "rather synthetic"], ["3", "cannot tell"], ["4", "rather real"], ["5", "surely real"]],
}[page.kind];
const NAMES = page.kind === "2afc" ? ["Left", "Right"] : ["Volume"];

const find = (name) => document.getElementById(name);

class Store {
  // What one reader has answered: `answers` by case, and the seconds `spent` on the case that is open.
  constructor(reader) {
    this.place = `dbtbench-study:${page.study}:${reader}`;
    this.kept = { answers: {}, spent: 0 };
    try {
      this.kept = JSON.parse(localStorage.getItem(this.place)) ?? this.kept;
    } catch { /* what cannot be read is not there */ }
  }

  write() {
    try {
      localStorage.setItem(this.place, JSON.stringify(this.kept));
    } catch { /* the start has said so */ }
  }

  static get works() {
    try {
      localStorage.setItem("dbtbench-study", "1");
      localStorage.removeItem("dbtbench-study");
      return true;
    } catch {
      return false;
    }
  }
}

class Clock {
  // Seconds while it runs.
  constructor(spent) {
    this.spent = spent;
    this.since = null;
  }

  run() {
    this.since ??= performance.now();
  }

  stop() {
    this.spent = this.seconds;
    this.since = null;
  }

  get seconds() {
    return this.spent + (this.since === null ? 0 : (performance.now() - this.since) / 1000);
  }
}

class Study extends Stage {
  constructor(reader) {
    super(page);
    this.reader = reader;
    this.store = new Store(reader);
    find("pictures").append(this.stage);
    this.stage.classList.toggle("single", NAMES.length === 1);
    this.stage.classList.toggle("swipe", this.state.drag === "slices");
    this.stage.style.setProperty("--aspect", String(page.tile[1] / page.tile[0]));
    this.pictures = NAMES.map(() => new Picture(this.stage, page));
    this.slider = find("slice");
    this.slider.max = String(page.grid[0] - 1);
    this.slider.addEventListener("input", () => this.move(Number(this.slider.value)));
    this.slider.addEventListener("pointerup", () => this.slider.blur()); // the keys are the study's again
    find("window").addEventListener("click", () => this.set(WINDOW));
    find("pause").addEventListener("click", () => this.pause());
    find("resume").addEventListener("click", () => this.resume());
    find("save").addEventListener("click", () => this.save());
    ANSWERS.forEach(([answer, title], k) => {
      const button = add(find("answers"), "button", { type: "button", "data-answer": answer }, `${k + 1} · ${title}`);
      button.addEventListener("click", () => this.answer(answer));
    });
    document.addEventListener("keydown", (event) => this.press(event));
    document.addEventListener("visibilitychange", () => document.hidden && this.pause());
    window.addEventListener("pagehide", () => this.pause());
    this.number = page.cases.findIndex((one) => !(one.case in this.store.kept.answers));
    this.open(this.store.kept.spent);
  }

  get reading() {
    return this.number >= 0 && this.number < page.cases.length && find("paused").hidden;
  }

  get keys() {
    const answers = ANSWERS.map(([answer], k) => [k + 1, () => this.answer(answer)]);
    return { ...super.keys, ...Object.fromEntries(answers) };
  }

  press(event) {
    if (!this.reading || (event.repeat && /^\d$/.test(event.key))) return; // a key held down answers once
    if (event.target === this.slider && !/^\d$/.test(event.key)) return; // the slider has keys of its own
    super.press(event);
  }

  open(spent = 0) {
    find("welcome").hidden = true;
    const over = this.number < 0 || this.number >= page.cases.length;
    find("reading").hidden = over;
    find("finish").hidden = !over;
    if (over) {
      find("finish-title").focus();
      return;
    }
    const scored = this.number - page.practice;
    const total = page.cases.length - page.practice;
    find("reading-title").textContent = scored < 0 ? `Practice ${this.number + 1} of ${page.practice}` : `Case ${scored + 1} of ${total}`;
    find("progress").value = Math.max(scored, 0);
    this.clock = new Clock(spent);
    this.clock.run();
    this.set({ ...WINDOW, slice: Math.floor(page.grid[0] / 2) });
    find("reading-title").focus({ preventScroll: true });
  }

  set(changes) {
    Object.assign(this.state, changes);
    this.slider.value = String(this.state.slice);
    this.slider.setAttribute("aria-valuetext", this.place);
    find("place").textContent = this.place;
    page.cases[this.number].sprites.forEach((sprite, k) => {
      this.pictures[k].show({ name: NAMES[k], caption: "", same: true, boxes: [], sprite }, this.state, null);
    });
  }

  answer(answer) {
    if (!this.reading) return;
    this.clock.stop();
    this.store.kept.answers[page.cases[this.number].case] = [answer, this.clock.seconds];
    this.store.kept.spent = 0;
    this.store.write();
    this.number += 1;
    this.open();
  }

  pause() {
    if (!this.reading) return;
    this.clock.stop();
    this.store.kept.spent = this.clock.seconds;
    this.store.write();
    find("case").hidden = find("pause").hidden = true;
    find("paused").hidden = false;
    find("resume").focus();
  }

  resume() {
    find("case").hidden = find("pause").hidden = false;
    find("paused").hidden = true;
    this.clock.run();
    this.set({});
    find("reading-title").focus({ preventScroll: true });
  }

  save() {
    const rows = page.cases.slice(page.practice).map((one) => {
      const [answer, seconds] = this.store.kept.answers[one.case];
      return [this.reader, one.case, answer, seconds.toFixed(1)].join(",");
    });
    download(`answers-${this.reader}.csv`, "text/csv", ["reader,case,answer,seconds", ...rows, ""].join("\n"));
  }
}

find("forgetful").hidden = Store.works;
find("entry").addEventListener("submit", (event) => {
  event.preventDefault();
  new Study(find("reader").value);
});
