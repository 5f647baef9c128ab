// A stage of pictures: slices, window and level, by wheel, keys, touch and dragging.

const WINDOW = { centre: 0.5, span: 1 };

class Stage {
  constructor(look) {
    this.look = look;
    this.pictures = [];
    this.state = { ...WINDOW, slice: 0, drag: matchMedia("(pointer: coarse)").matches ? "slices" : "window" };
    this.stage = add(null, "div", { class: "stage", role: "group", "aria-label": "Pictures" });
    this.stage.addEventListener("wheel", (event) => this.turn(event), { passive: false });
    this.stage.addEventListener("pointerdown", (event) => this.grab(event));
  }

  get keys() {
    const { slice, span } = this.state;
    return {
      ArrowUp: () => this.move(slice - 1),
      ArrowDown: () => this.move(slice + 1),
      PageUp: () => this.move(slice - 4),
      PageDown: () => this.move(slice + 4),
      Home: () => this.move(0),
      End: () => this.move(this.look.grid[0] - 1),
      "+": () => this.set({ span: clamp(span * 1.15, 0.02, 2) }),
      "-": () => this.set({ span: clamp(span / 1.15, 0.02, 2) }),
      0: () => this.set(WINDOW),
    };
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = this.keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  move(slice) {
    this.set({ slice: clamp(slice, 0, this.look.grid[0] - 1) });
  }

  get place() {
    return `slice ${this.state.slice + 1} of ${this.look.grid[0]}`;
  }

  turn(event) {
    if (!(event.target instanceof HTMLCanvasElement) || event.ctrlKey) return;
    const next = this.state.slice + Math.sign(event.deltaY);
    if (next < 0 || next >= this.look.grid[0]) return; // at the ends the page scrolls on
    event.preventDefault();
    this.move(next);
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
