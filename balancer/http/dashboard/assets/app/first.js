// Runs before the first paint, so that a chosen colour scheme does not flash the other one.
(() => {
  try {
    const theme = localStorage.getItem("paddler.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // storage is switched off: the system's scheme it is
  }
})();
