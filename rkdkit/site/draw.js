// Draws the pictures of a page: each is JSON in a script element that names its place. The last script to be loaded.
(() => {
  "use strict";
  const SETTINGS = {
    responsive: true,
    displaylogo: false,
    plotlyServerURL: "", // nothing is sent to elsewhere: plotly has a button that would
    modeBarButtonsToRemove: ["sendChartToCloud", "lasso2d", "select2d"],
  };
  const together = []; // the pictures whose surfaces are turned together

  const turnOthers = (turned, camera) => {
    for (const div of together) {
      if (div !== turned) Plotly.relayout(div, { "scene.camera": camera });
    }
  };

  // a picture that another one has turned tells nobody
  const turnTogether = (div) => {
    let pressed = false;
    together.push(div);
    div.addEventListener("pointerdown", () => (pressed = true), true);
    div.addEventListener("wheel", () => (pressed = true), true);
    div.on("plotly_relayout", (change) => {
      if (pressed && change["scene.camera"]) turnOthers(div, change["scene.camera"]);
      pressed = false;
    });
  };

  const draw = async (script) => {
    const div = document.getElementById(script.dataset.rkdkitPicture);
    const { data, layout, frames = [] } = JSON.parse(script.textContent);
    const isDeep = data.some((trace) => trace.type === "surface");
    // on a touch screen, dragging across a picture scrolls the page
    if (!isDeep && matchMedia("(pointer: coarse)").matches) layout.dragmode = false;
    div.dispatchEvent(new CustomEvent("rkdkit:drawing", { bubbles: true, detail: { data, layout } }));
    await Plotly.newPlot(div, { data, layout, frames, config: SETTINGS });
    if (layout.meta?.turned === "together") turnTogether(div);
    div.dispatchEvent(new CustomEvent("rkdkit:drawn", { bubbles: true }));
  };

  const drawAll = () => document.querySelectorAll("script[data-rkdkit-picture]").forEach(draw);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", drawAll);
  else drawAll();
})();
