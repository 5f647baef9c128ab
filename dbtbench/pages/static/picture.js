// One picture of the viewer: a sprite's slice through a window, with boxes and detections over it.

const SIDE = 512; // largest side of a canvas in its own pixels

class Picture {
  constructor(parent, look) {
    this.look = look;
    this.figure = add(parent, "figure");
    this.title = add(this.figure, "figcaption");
    this.canvas = add(this.figure, "canvas", { tabindex: "0", role: "img" });
    this.caption = add(this.figure, "p", { class: "small" });
    const [height, width] = look.tile;
    this.tile = add(null, "canvas");
    this.tile.width = width;
    this.tile.height = height;
    this.scale = Math.max(1, Math.floor(SIDE / Math.max(width, height)));
    this.canvas.width = width * this.scale;
    this.canvas.height = height * this.scale;
    this.image = new Image();
    this.image.addEventListener("load", () => this.render());
  }

  show(volume, state, found) {
    Object.assign(this, { volume, state, found });
    this.title.textContent = volume.name + (volume.same ? "" : " (another layout)");
    this.caption.textContent = volume.caption;
    if (this.sprite !== volume.sprite) {
      this.sprite = volume.sprite;
      this.image.src = volume.sprite;
    }
    this.render();
  }

  render() {
    const { state, volume, look } = this;
    this.canvas.setAttribute("aria-label", `${volume.name}, slice ${state.slice + 1} of ${look.grid[0]}${state.boxes ? `, ${volume.boxes.length} lesions` : ""}`);
    if (!this.image.complete || !this.image.naturalWidth) return;
    const [height, width] = look.tile;
    const brush = this.tile.getContext("2d", { willReadFrequently: true });
    const column = state.slice % look.columns;
    const row = Math.floor(state.slice / look.columns);
    brush.drawImage(this.image, column * width, row * height, width, height, 0, 0, width, height);
    const pixels = brush.getImageData(0, 0, width, height);
    const { centre, span } = volume.difference ? { centre: 0.5, span: state.span / 2 } : state;
    const low = 255 * (centre - span / 2);
    const rise = 1 / span;
    for (let k = 0; k < pixels.data.length; k += 4) {
      const grey = clamp((pixels.data[k] - low) * rise, 0, 255);
      pixels.data[k] = pixels.data[k + 1] = pixels.data[k + 2] = grey;
    }
    brush.putImageData(pixels, 0, 0);
    const pen = this.canvas.getContext("2d");
    pen.imageSmoothingEnabled = true;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(this.tile, 0, 0, this.canvas.width, this.canvas.height);
    if (state.boxes) this.drawBoxes(pen);
    if (this.found) this.drawDetections(pen);
  }

  cuts(box) {
    const middle = this.state.slice + 0.5;
    return box[0] < middle && box[3] > middle;
  }

  outline(pen, box) {
    const [, height, width] = this.look.grid;
    const across = this.canvas.width / width;
    const down = this.canvas.height / height;
    const corner = [box[2] * across, box[1] * down];
    pen.strokeRect(corner[0], corner[1], (box[5] - box[2]) * across, (box[4] - box[1]) * down);
    return corner;
  }

  drawBoxes(pen) {
    pen.lineWidth = Math.max(2, this.canvas.width / 200);
    pen.strokeStyle = "#ffd23c";
    pen.setLineDash([]);
    for (const box of this.volume.boxes) if (this.cuts(box)) this.outline(pen, box);
  }

  drawDetections(pen) {
    const size = Math.round(this.canvas.width / 26);
    pen.font = `bold ${size}px sans-serif`;
    pen.lineWidth = Math.max(2, this.canvas.width / 200);
    for (const one of this.found) {
      if (one[6] < this.state.least || !this.cuts(one)) continue;
      pen.strokeStyle = one[7] ? "#5fe08a" : "#ff7b72";
      pen.setLineDash(one[7] ? [] : [size / 2, size / 3]);
      const [x, y] = this.outline(pen, one);
      const text = one[6].toFixed(2);
      pen.setLineDash([]);
      pen.fillStyle = "rgba(0, 0, 0, 0.7)";
      const top = y > size + 4 ? y - size - 4 : y + 2;
      pen.fillRect(x, top, pen.measureText(text).width + 6, size + 4);
      pen.fillStyle = pen.strokeStyle;
      pen.fillText(text, x + 3, top + size);
    }
  }
}
