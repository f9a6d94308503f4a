// Pictures that a person adds, as data URLs; nothing is fetched.

import { MOST_PICTURE_BYTES } from "./request.js";

export const PICTURE_TYPES = ["image/png", "image/jpeg", "image/webp", "image/gif"];

/**
 * @param {File} file
 * @returns {Promise<import("./conversation.js").Picture>}
 * @throws {Error} saying why it cannot be sent
 */
export function pictureOf(file) {
  if (!PICTURE_TYPES.includes(file.type)) {
    return Promise.reject(new Error(`${file.name} is no PNG, JPEG, WebP or GIF.`));
  }
  if (file.size > MOST_PICTURE_BYTES) {
    const most = MOST_PICTURE_BYTES / 1024 / 1024;
    return Promise.reject(new Error(`${file.name} is larger than ${most} MiB.`));
  }
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve({ name: file.name, url: String(reader.result), bytes: file.size });
    reader.onerror = () => reject(new Error(`${file.name} could not be read.`));
    reader.readAsDataURL(file);
  });
}
