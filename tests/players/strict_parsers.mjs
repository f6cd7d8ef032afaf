// Reads an asset with the parsers of Video.js and GPAC and prints what they understood, and all they complained about.
// node strict_parsers.mjs WEB_FOLDER ASSET_URL [--ts]   ->  one JSON document; --ts: main-ts.m3u8 too
import { createRequire } from "node:module";
import { resolve } from "node:path";

const [webFolder, asset, ts] = process.argv.slice(2);
const require = createRequire(resolve(webFolder, "package.json"));
const { Parser } = require("m3u8-parser");
const { parse: parseMpd } = require("mpd-parser");
const { createFile, Log } = require("mp4box");

const complaints = [];
for (const level of ["warn", "error"]) Log[level] = (...words) => complaints.push(`mp4box: ${words.join(" ")}`);

async function get(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${response.status} ${url}`);
  return response;
}

async function playlist(url) {
  const parser = new Parser();
  // "info" tells of defaults of optional tags, "warn" of everything that is not as it should be.
  parser.on("warn", ({ message }) => complaints.push(`m3u8-parser: ${message} in ${url}`));
  parser.push(await (await get(url)).text());
  parser.end();
  return parser.manifest;
}

/** An init segment and all its segments, one after the other, as one file. */
async function fragments(init, segments) {
  const file = createFile();
  file.onError = (...words) => complaints.push(`mp4box: ${words.join(" ")} in ${init}`);
  let info = null;
  file.onReady = (ready) => { info = ready; };
  let at = 0;
  for (const url of [init, ...segments]) {
    const data = await (await get(url)).arrayBuffer();
    data.fileStart = at;
    at += data.byteLength;
    file.appendBuffer(data);
  }
  file.flush();
  if (!info) throw new Error(`mp4box found no moov in ${init}`);
  const [track] = info.tracks;
  const samples = file.getTrackSamplesInfo(track.id);
  return {
    codec: track.codec, timescale: track.timescale, brands: info.brands, width: track.video?.width, height: track.video?.height,
    samples: samples.length, bytes: samples.reduce((sum, sample) => sum + sample.size, 0), duration: samples.reduce((sum, sample) => sum + sample.duration, 0),
    dts: samples[0].dts, gaps: samples.filter((sample, n) => n > 0 && sample.dts !== samples[n - 1].dts + samples[n - 1].duration).length,
    boxes: [...new Set(file.boxes.map((box) => box.type))],
  };
}

async function media(url) {
  const manifest = await playlist(url);
  const absolute = (uri) => new URL(uri, url).href;
  const map = manifest.segments[0].map?.uri;
  return {
    url, target: manifest.targetDuration, end: manifest.endList, version: manifest.version, iframes: Boolean(manifest.iFramesOnly),
    segments: manifest.segments.map((segment) => ({ uri: segment.uri, duration: segment.duration })),
    file: map ? await fragments(absolute(map), manifest.segments.map((segment) => absolute(segment.uri))) : null,
  };
}

async function hls(name) {
  const url = `${asset}/${name}`;
  const manifest = await playlist(url);
  const groups = Object.values(manifest.mediaGroups).flatMap((group) => Object.values(group)).flatMap((group) => Object.values(group));
  const uris = new Set([...manifest.playlists, ...groups, ...(manifest.iFramePlaylists ?? [])].map((item) => item.uri).filter(Boolean));
  return {
    variants: manifest.playlists.map(({ uri, attributes }) => ({ uri, attributes })),
    iframes: (manifest.iFramePlaylists ?? []).map(({ uri, attributes }) => ({ uri, attributes })),
    languages: groups.map(({ language, uri }) => ({ language, uri })),
    media: Object.fromEntries(await Promise.all([...uris].map(async (uri) => [uri, await media(new URL(uri, url).href)]))),
  };
}

async function dash() {
  const url = `${asset}/main.mpd`;
  const manifest = parseMpd(await (await get(url)).text(), { manifestUri: url, eventHandler: ({ type, message }) => complaints.push(`mpd-parser: ${type}: ${message}`) });
  const groups = Object.values(manifest.mediaGroups).flatMap((group) => Object.values(group)).flatMap((group) => Object.values(group));
  const playlists = [...manifest.playlists, ...groups.flatMap((group) => group.playlists.map((item) => ({ ...item, language: group.language })))];
  return {
    duration: manifest.duration, end: manifest.endList,
    playlists: await Promise.all(playlists.map(async (item) => ({
      name: item.attributes.NAME, attributes: item.attributes, language: item.language, end: item.endList,
      segments: item.segments.map((segment) => ({ uri: segment.resolvedUri, duration: segment.duration, time: segment.presentationTime })),
      file: item.segments[0].map ? await fragments(item.segments[0].map.resolvedUri, item.segments.map((segment) => segment.resolvedUri)) : null,
    }))),
  };
}

const result = { hls: await hls("main.m3u8"), ts: ts ? await hls("main-ts.m3u8") : null, dash: await dash(), complaints };
console.log(JSON.stringify(result));
