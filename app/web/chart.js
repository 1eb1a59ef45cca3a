// Curves of one or several trainings, drawn by uPlot (the global `uPlot`).

import { loss } from "./dom.js";

/** Okabe and Ito's colours, which the colour-blind can tell apart, darker or lighter where 3 : 1 asks for it. */
const ON_LIGHT = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b07d00", "#332288", "#8a6d3b", "#7f7f7f"];
const ON_DARK = ["#56b4e9", "#e69f00", "#2fc497", "#e59cc5", "#f0e442", "#9ecae1", "#d9b98a", "#b0b0b0"];
const dark = matchMedia("(prefers-color-scheme: dark)");
const HEIGHT = 320;
const SLIM = 560;

/** What a training has told of its losses, by step. */
export class Curve {
  constructor(label) {
    this.label = label;
    this.train = new Map();
    this.val = new Map();
  }

  take(step, train, val) {
    if (train !== null && train !== undefined) this.train.set(step, train);
    if (val !== null && val !== undefined) this.val.set(step, val);
  }

  /** Instead of everything before: what the service has. */
  replace(rows) {
    this.train.clear();
    this.val.clear();
    for (const row of rows) this.take(row.step, row.train_loss, row.val_loss);
  }

  get best() {
    let best = null;
    for (const [step, value] of this.val) if (best === null || value < best.value) best = { step, value };
    return best;
  }

  get last() {
    return [...this.train.values()].at(-1) ?? null;
  }
}

export class LossChart {
  constructor(holder) {
    this.holder = holder;
    this.curves = [];
    this.plot = null;
    this.waiting = false;
    new ResizeObserver(() => this.#resize()).observe(holder);
    dark.addEventListener("change", () => this.#forget() || this.show(this.curves));
  }

  /** Draw these curves; called again whenever one of them has grown. At most once a frame. */
  show(curves) {
    const others = curves.length !== this.curves.length || curves.some((curve, n) => curve !== this.curves[n]);
    this.curves = curves;
    if (others) this.#forget();
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.#draw();
    });
  }

  get #colours() {
    return dark.matches ? ON_DARK : ON_LIGHT;
  }

  #forget() {
    this.plot?.destroy();
    this.plot = null;
  }

  #data() {
    const tables = this.curves.flatMap((curve) => [curve.train, curve.val].map(sorted));
    return tables.length ? uPlot.join(tables) : [[]];
  }

  #draw() {
    const width = this.holder.clientWidth;
    if (!width) return; // not shown: drawn when it is
    const data = this.#data();
    if (this.plot) this.plot.setData(data);
    else this.plot = new uPlot(this.#options(width), data, this.holder);
    const picture = this.plot.root.querySelector(".u-wrap"); // not with the legend, which can be read
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", this.#told());
  }

  #told() {
    return this.curves
      .map((curve) => {
        const best = curve.best;
        const told = best ? `, lowest validation loss ${loss(best.value)} at step ${best.step}` : "";
        return `${curve.label}: training loss ${loss(curve.last)}${told}`;
      })
      .join("; ");
  }

  #options(width) {
    const ink = getComputedStyle(document.documentElement).getPropertyValue("--soft");
    const line = getComputedStyle(document.documentElement).getPropertyValue("--line");
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    const several = this.curves.length > 1;
    const colours = this.#colours;
    const series = this.curves.flatMap((curve, n) => {
      const stroke = colours[n % colours.length];
      const name = several ? `${curve.label} ` : "";
      const value = (_, number) => loss(number);
      return [
        { label: `${name}training`, stroke, width: 1, dash: several ? [2, 2] : [], spanGaps: true, points: { show: false }, value },
        {
          label: `${name}validation`,
          stroke: several ? stroke : colours[1],
          width: 2,
          dash: several ? [] : [6, 3],
          spanGaps: true,
          points: { show: true, size: 5 },
          value,
        },
      ];
    });
    return {
      width,
      height: width < SLIM ? 240 : HEIGHT,
      scales: { x: { time: false } },
      axes: [
        { ...axis, label: "step", labelSize: 18 },
        { ...axis, label: "loss, nats per character", labelSize: 18, size: 50 },
      ],
      series: [{ label: "step" }, ...series],
      hooks: { draw: [(plot) => this.#markBest(plot)] },
    };
  }

  /** A ring around the lowest validation loss of each. */
  #markBest(plot) {
    const context = plot.ctx;
    const colours = this.#colours;
    context.save();
    context.lineWidth = 2 * devicePixelRatio;
    this.curves.forEach((curve, n) => {
      const best = curve.best;
      if (!best) return;
      context.strokeStyle = this.curves.length > 1 ? colours[n % colours.length] : colours[1];
      context.beginPath();
      context.arc(plot.valToPos(best.step, "x", true), plot.valToPos(best.value, "y", true), 7 * devicePixelRatio, 0, 7);
      context.stroke();
    });
    context.restore();
  }

  #resize() {
    const width = this.holder.clientWidth;
    if (!width) return;
    if (this.plot) this.plot.setSize({ width, height: width < SLIM ? 240 : HEIGHT });
    else if (this.curves.length) this.show(this.curves);
  }
}

function sorted(map) {
  const steps = [...map.keys()].sort((a, b) => a - b);
  return [steps, steps.map((step) => map.get(step))];
}
