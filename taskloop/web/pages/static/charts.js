/* Draws the charts of a job with uPlot, from what stands in their figures; the tables beside them say the same. */
(() => {
  "use strict";
  const { span } = window.taskloop;
  const drawn = new WeakMap(); // figure: [its data, its plot]
  const tint = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const local = (seconds, zone) => window.uPlot.tzDate(new Date(seconds * 1000 + 0.5), zone); // not just below a millisecond

  function axes(zone, values) {
    const one = { stroke: tint("quiet"), grid: { stroke: tint("line"), width: 1 }, ticks: { show: false } };
    const day = window.uPlot.fmtDate("{D} {MMM}");
    const times = (_, list, __, ___, step) => {
      const clock = window.uPlot.fmtDate("{HH}:{mm}:{ss}.{fff}".slice(0, step < 1 ? 20 : step < 60 ? 14 : 9));
      let last = "";
      return list.map((seconds) => {
        const at = local(seconds, zone), date = day(at);
        const text = step >= 86400 ? date : date === last ? clock(at) : `${clock(at)}\n${date}`;
        last = date;
        return text;
      });
    };
    const space = (_, __, first, last, pixels) => (pixels < 2 * (last - first) ? 50 : 84); // for seconds more
    return [{ ...one, values: times, space }, { ...one, values, size: 64, space: 24 }];
  }
  function dots(label, fill, size, value) {
    return { label, value, paths: () => null, stroke: fill ? tint("ok") : tint("bad"),
      points: { show: true, size, width: 1.5, stroke: fill ? tint("ok") : tint("bad"), fill: fill ? tint("ok") : tint("ground") } };
  }
  function level(label, value) {
    return { label, value, stroke: tint("quiet"), dash: [4, 4], width: 1, points: { show: false } };
  }
  function mark(seconds) { // as `span` says it, but with all digits that the steps of an axis have
    return seconds < 1 ? `${+(seconds * 1000).toFixed(2)} ms` : seconds < 60 ? `${+seconds.toFixed(2)} s` : span(seconds);
  }
  function durations(data, zone) {
    const took = (_, seconds) => (seconds === null || seconds === undefined ? "–" : span(seconds));
    const least = (list) => list.map((seconds) => (seconds === null ? null : Math.max(0.001, seconds)));
    const all = [...data.well, ...data.ill].filter((seconds) => seconds !== null);
    const wide = data.p50 > 0 && Math.max(...all) > 20 * data.p50;
    const across = (seconds) => data.at.map(() => seconds);
    return {
      scales: { y: wide ? { distr: 3 } : { range: (_, low, high) => [0, (high || 1) * 1.1] } },
      axes: axes(zone, (_, list) => list.map((seconds) => (seconds === null ? "" : mark(seconds)))),
      series: [{ label: "ended", value: "{YYYY}-{MM}-{DD} {HH}:{mm}:{ss}" }, dots("succeeded", true, 5, took), dots("not", false, 8, took),
        level("half within", took), level("95 % within", took)],
      lists: [data.at, least(data.well), least(data.ill), across(data.p50), across(data.p95)],
      open: (index) => `${document.body.dataset.base}/runs/${data.run[index]}`,
    };
  }
  function shown(counts) {
    return counts.map((count) => count || null);
  }
  function success(data, zone) {
    const bars = window.uPlot.paths.bars({ size: [0.7, 40] });
    const bar = (label, color, list) => (
      { label, stroke: color, fill: color, paths: bars, points: { show: false }, value: (_, __, ___, index) => (index === null ? "–" : list[index]) });
    return {
      scales: {
        x: { range: (_, first, last) => [first - 43200, last + 43200] },
        y: { range: (_, low, high) => [0, (high || 1) * 1.05] },
      },
      axes: axes(zone, (_, list) => list.map((count) => (Number.isInteger(count) ? count : ""))),
      series: [{ label: "day", value: "{YYYY}-{MM}-{DD}" }, bar("failed", tint("bad"), data.ill), bar("succeeded", tint("ok"), data.well)],
      lists: [data.at, shown(data.well.map((count, index) => count + data.ill[index])), shown(data.well)],
    };
  }
  const KINDS = { durations, success };

  function draw(figure) {
    const box = figure.querySelector(".plot"), said = figure.dataset.points;
    const [before, old] = drawn.get(figure) ?? [];
    if (before === said) return;
    const { lists, open, ...options } = KINDS[figure.dataset.chart](JSON.parse(said), figure.dataset.zone);
    old?.destroy();
    const zone = figure.dataset.zone;
    const plot = new window.uPlot(
      { ...options, width: Math.max(240, box.clientWidth), height: 200, cursor: { drag: { x: false, y: false } },
        tzDate: (seconds) => local(seconds, zone) },
      lists, box);
    for (const head of plot.root.querySelectorAll("th")) head.scope = "row";
    if (open) {
      plot.over.classList.add("opens");
      plot.over.addEventListener("click", () => plot.cursor.idx !== null && location.assign(open(plot.cursor.idx)));
    }
    drawn.set(figure, [said, plot]);
  }
  function drawAll(anew) {
    for (const figure of document.querySelectorAll("[data-chart]")) {
      if (anew) drawn.get(figure)?.splice(0, 1, null);
      draw(figure);
    }
  }
  drawAll(false);
  document.addEventListener("taskloop:shown", () => drawAll(false));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(true));
  let sized = null;
  addEventListener("resize", () => {
    clearTimeout(sized);
    sized = setTimeout(() => drawAll(true), 200);
  });
})();
