// The library of pictures, which is no module: asked for by the pages that draw some.

const ADDRESS = "/assets/vendor/uplot@1.6.32/uPlot.iife.min.js";

/** The only script that code here may add: the page's policy names this and no other. */
const addresses = /** @type {any} */ (globalThis).trustedTypes?.createPolicy("paddler-plots", {
  createScriptURL: () => ADDRESS,
});

/** @type {Promise<void> | null} */
let loading = null;

/** Once it is there; may be asked again where it could not be loaded. @returns {Promise<void>} */
export function plotsLoaded() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = addresses?.createScriptURL("") ?? ADDRESS;
    script.onload = () => resolve();
    script.onerror = () => {
      loading = null;
      reject(new Error("The pictures could not be loaded."));
    };
    document.head.append(script);
  });
  return loading;
}
