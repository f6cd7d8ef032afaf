// Builds the player page: node web/build.mjs [OUTPUT]   (default: streamgate/web beside this folder)
// Every file below static/ carries a hash of its bytes in its name, so that it may be cached for ever;
// index.html names them and is revalidated. manifest.json lists all files with type, size and hash.
import { createHash } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join, posix, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const output = resolve(process.argv[2] ?? join(here, "..", "streamgate", "web"));

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
  ".txt": "text/plain; charset=utf-8",
};

// [source, name below static/]: a file comes after all those that it names.
const FILES = [
  ["node_modules/hls.js/dist/hls.min.js", "hls.min.js"],
  ["node_modules/dashjs/dist/modern/umd/dash.all.min.js", "dash.all.min.js"],
  ["node_modules/shaka-player/dist/shaka-player.compiled.js", "shaka-player.compiled.js"],
  ["players/labels.js", "players/labels.js"],
  ["players/hls.js", "players/hls.js"],
  ["players/dash.js", "players/dash.js"],
  ["players/shaka.js", "players/shaka.js"],
  ["players/native.js", "players/native.js"],
  ["playback.js", "playback.js"],
  ["players.js", "players.js"],
  ["gate.js", "gate.js"],
  ["panels.js", "panels.js"],
  ["meter.js", "meter.js"],
  ["words.js", "words.js"],
  ["app.js", "app.js"],
  ["style.css", "style.css"],
  ["icon.svg", "icon.svg"],
];
const LIBRARIES = { "hls.js": "LICENSE", dashjs: "LICENSE.md", "shaka-player": "LICENSE" };

const hash = (data) => createHash("sha256").update(data).digest("hex");

function hashed(name, digest) {
  const { dir, name: stem, ext } = posix.parse(name);
  return posix.join(dir, `${stem}-${digest.slice(0, 12)}${ext}`);
}

/** Replaces each "./x" or "static/x" in a text of ours, written in `folder`, by the hashed name of x. */
function link(text, folder, names) {
  return text.replace(/(["'])(\.{1,2}\/|static\/)([\w./-]+)\1/g, (whole, quote, prefix, path) => {
    const target = prefix === "static/" ? path : posix.join(folder, prefix, path);
    const to = names.get(target);
    if (!to) throw new Error(`${whole} names nothing that was built`);
    if (prefix === "static/") return `${quote}static/${to}${quote}`;
    const relative = posix.relative(folder, to);
    return `${quote}${relative.startsWith(".") ? relative : `./${relative}`}${quote}`;
  });
}

async function main() {
  const names = new Map();
  const files = [];
  await rm(output, { recursive: true, force: true });

  async function put(path, data, immutable) {
    const target = join(output, path);
    await mkdir(dirname(target), { recursive: true });
    await writeFile(target, data);
    files.push({ path, type: TYPES[posix.extname(path)], size: data.length, sha256: hash(data), immutable });
  }

  for (const [source, name] of FILES) {
    let data = await readFile(join(here, source));
    const library = source.startsWith("node_modules/");
    if (library) data = Buffer.from(data.toString().replace(/\n?\/\/# sourceMappingURL=.*\s*$/, "\n")); // the maps are not served
    else data = Buffer.from(link(data.toString(), posix.dirname(name), names));
    names.set(name, hashed(name, hash(data)));
    await put(`static/${names.get(name)}`, data, true);
  }

  const licenses = [];
  for (const [library, file] of Object.entries(LIBRARIES)) {
    const { version } = JSON.parse(await readFile(join(here, "node_modules", library, "package.json"), "utf8"));
    licenses.push(`${library} ${version}\n${"=".repeat(40)}\n\n${await readFile(join(here, "node_modules", library, file), "utf8")}`);
  }
  const text = Buffer.from(licenses.join("\n\n"));
  names.set("licenses.txt", hashed("licenses.txt", hash(text)));
  await put(`static/${names.get("licenses.txt")}`, text, true);

  await put("index.html", Buffer.from(link(await readFile(join(here, "index.html"), "utf8"), ".", names)), false);
  await writeFile(join(output, "manifest.json"), `${JSON.stringify({ files }, null, 2)}\n`);
  const total = files.reduce((sum, file) => sum + file.size, 0);
  console.log(`${files.length} files, ${(total / 1024).toFixed(0)} KiB, in ${output}`);
}

await main();
