// Does to the page what a reader does, and writes down what is left of it after it has changed.
"use strict";
addEventListener("load", () => {
  const last = [...document.querySelectorAll(".box")].at(-1);
  last.focus();
  last.scrollLeft = 40;
  document.getElementById("legend").open = true;
  setTimeout(() => {
    const now = document.getElementById(last.id), root = document.documentElement;
    const found = {
      focus: document.activeElement === now,
      left: now.scrollLeft,
      open: document.getElementById("legend").open,
      wide: root.scrollWidth > innerWidth || document.body.scrollWidth > innerWidth,
      width: innerWidth,
    };
    root.dataset.probe = Object.entries(found).join(" ");
  }, 5000);
});
