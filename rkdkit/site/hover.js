// Shows the image of a point beside it, for the pointer and for the keyboard: the left and right keys go from point to
// point, up and down move the slider, if there is one.
(() => {
  "use strict";
  const SIZE = 72; // pixels
  const GAP = 14;

  const withImages = (div) => {
    const image = Object.assign(document.createElement("img"), { className: "rkdkit-thumbnail", width: SIZE, alt: "" });
    Object.assign(image.style, {
      display: "none",
      position: "absolute",
      width: `${SIZE}px`,
      height: `${SIZE}px`,
      margin: 0,
      border: "1px solid #8a8a8a",
      imageRendering: "pixelated",
      pointerEvents: "none",
      zIndex: 10,
    });
    const told = document.createElement("span"); // a screen reader says it; it is not seen
    told.setAttribute("role", "status");
    Object.assign(told.style, { position: "absolute", width: "1px", height: "1px", overflow: "hidden", clipPath: "inset(50%)" });
    div.append(image, told);
    div.tabIndex = 0;
    return { image, told };
  };

  // the label that plotly draws is on one side of the point; the image goes to the other
  const sideOf = (div, x) => {
    const label = div.querySelector(".hoverlayer .hovertext")?.getBoundingClientRect();
    const isRight = !label || label.left + label.width / 2 > div.getBoundingClientRect().left + x;
    const left = isRight ? x - GAP - SIZE : x + GAP;
    return Math.min(Math.max(left, 0), div.clientWidth - SIZE);
  };

  const show = (div, { image, told }, { curveNumber, pointNumber }) => {
    const trace = div.data[curveNumber];
    const { xaxis, yaxis } = div._fullLayout;
    const [index, about] = trace.customdata[pointNumber];
    const x = xaxis._offset + xaxis.d2p(trace.x[pointNumber]);
    const y = yaxis._offset + yaxis.d2p(trace.y[pointNumber]);
    image.src = div.layout.meta.images[index];
    image.alt = told.textContent = about;
    Object.assign(image.style, { left: `${sideOf(div, x)}px`, top: `${Math.max(y - SIZE / 2, 0)}px`, display: "block" });
  };

  const hasImages = (trace) => trace.meta === "images" && (trace.visible ?? true) === true;

  const pointsOf = (div) =>
    div.data.flatMap((trace, curveNumber) =>
      hasImages(trace) ? trace.x.map((_, pointNumber) => ({ curveNumber, pointNumber })) : [],
    );

  const moveSlider = (div, by) => {
    const { active = 0, steps } = div.layout.sliders[0];
    const next = Math.min(Math.max(active + by, 0), steps.length - 1);
    Plotly.relayout(div, { "sliders[0].active": next });
    Plotly.animate(div, ...steps[next].args);
  };

  document.addEventListener("rkdkit:drawn", ({ target: div }) => {
    if (!div.layout.meta?.images?.length) return;
    const shown = withImages(div);
    const hide = () => {
      shown.image.style.display = "none";
    };
    let at = -1; // the point that the keys have come to

    div.on("plotly_hover", ({ points: [point] }) => {
      if (hasImages(div.data[point.curveNumber])) show(div, shown, point);
    });
    div.on("plotly_unhover", hide);
    div.addEventListener("blur", hide);
    div.addEventListener("keydown", (event) => {
      if (event.target !== div || event.ctrlKey || event.altKey || event.metaKey) return;
      const across = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const up = { ArrowUp: 1, ArrowDown: -1 }[event.key];
      if (up && div.layout.sliders?.length) {
        event.preventDefault();
        hide();
        moveSlider(div, up);
      } else if (across) {
        event.preventDefault();
        const points = pointsOf(div);
        if (!points.length) return;
        at = at < 0 && across < 0 ? points.length - 1 : (at + across + points.length) % points.length;
        Plotly.Fx.hover(div, [points[at]]); // tells nobody
        show(div, shown, points[at]);
      } else if (event.key === "Escape") {
        hide();
        Plotly.Fx.unhover(div);
      }
    });
  });
})();
