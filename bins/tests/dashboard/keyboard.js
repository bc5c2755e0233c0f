// What a person with a keyboard, and nothing else, finds on the page.
"use strict";
const said = (it) => it.getAttribute("href") ?? it.getAttribute("aria-label") ?? it.localName;

// All that may be of use with a keyboard: what can be reached with it, and what can be scrolled.
const useful = () => [...document.querySelectorAll("*")].filter((it) => {
  const scrolls = it.scrollWidth > it.clientWidth && ["auto", "scroll"].includes(getComputedStyle(it).overflowX);
  return it.checkVisibility() && (it.tabIndex >= 0 || scrolls);
});

const looks = (it) => {
  const { outlineStyle, outlineWidth, outlineColor, boxShadow } = getComputedStyle(it);
  return [outlineStyle, outlineWidth, outlineColor, boxShadow].join(" ");
};
const before = new Map(useful().map((it) => [said(it), looks(it)]));

// Where the focus is, and what is wrong with how that is shown.
const focus = () => {
  const it = document.activeElement;
  if (it === document.body) return ["", []];
  // The first, where it goes over lines.
  const style = getComputedStyle(it), { left, top, right, bottom } = it.getClientRects()[0];
  const x = (Math.max(left, 0) + Math.min(right, innerWidth)) / 2;
  const y = (Math.max(top, 0) + Math.min(bottom, innerHeight)) / 2;
  const wrong = {
    "off the screen": left < 0 || right > innerWidth || bottom <= 0 || top >= innerHeight,
    "not to be seen": !it.checkVisibility({ opacityProperty: true, visibilityProperty: true }),
    "covered or clipped": !it.contains(document.elementFromPoint(x, y)),
    "without a mark": (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2) && style.boxShadow === "none",
    "as without focus": looks(it) === before.get(said(it)),
  };
  return [said(it), Object.keys(wrong).filter((fault) => wrong[fault])];
};
