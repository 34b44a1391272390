// Uploads a file with tus-js-client, is interrupted half-way, and goes on in another upload object that finds the
// earlier one in its storage, as a program that was started again does. Usage: node upload.mjs URL TOKEN FILE STORAGE
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import * as tus from "tus-js-client";

const [, , url, token, path, storage] = process.argv;
const file = readFileSync(path);
const hash = createHash("sha256").update(file).digest("hex");

const make = (handlers) =>
  new tus.Upload(file, {
    endpoint: `${url}/v1/uploads`,
    headers: { Authorization: `Bearer ${token}` },
    metadata: { hash, filetype: "application/pdf", filename: "paper.pdf" },
    chunkSize: 512 * 1024,
    retryDelays: [0, 100, 1000],
    urlStorage: new tus.FileUrlStorage(storage),
    fingerprint: async () => hash,
    removeFingerprintOnSuccess: true,
    ...handlers,
  });

const interrupted = await new Promise((resolve, reject) => {
  const upload = make({
    onError: reject,
    onSuccess: () => reject(new Error("it was to be interrupted")),
    onChunkComplete: async (size, accepted) => {
      if (accepted < file.length / 2) return;
      await upload.abort();
      resolve(accepted);
    },
  });
  upload.start();
});

await new Promise((resolve, reject) => {
  let first = true;
  const upload = make({
    onError: reject,
    onSuccess: () => {
      console.log(upload.url.split("/").pop());
      resolve();
    },
    onProgress: (sent) => {
      if (first && sent < interrupted) reject(new Error(`it began again at ${sent}`));
      first = false;
    },
  });
  upload.findPreviousUploads().then((previous) => {
    if (previous.length !== 1) return reject(new Error(`${previous.length} earlier uploads`));
    upload.resumeFromPreviousUpload(previous[0]);
    upload.start();
  });
});
