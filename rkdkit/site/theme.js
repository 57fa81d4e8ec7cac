// Gives the texts of all pictures the page's own colour of text, and again whenever the page turns light or dark.
(() => {
  "use strict";
  const colourOf = (div) => getComputedStyle(div).color;
  const drawn = new Map(); // by picture: the colour it is drawn with

  document.addEventListener("rkdkit:drawing", ({ target, detail: figure }) => {
    const colour = colourOf(target);
    figure.layout.font = { ...figure.layout.font, color: colour };
    drawn.set(target, colour);
  });

  new MutationObserver(() => {
    for (const [div, colour] of drawn) {
      const now = colourOf(div);
      if (now === colour) continue;
      drawn.set(div, now);
      Plotly.relayout(div, { "font.color": now });
    }
  }).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
})();
