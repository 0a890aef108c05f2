// Goal: the structure that ARCHITECTURE.md describes stays true. Method: every tracked TypeScript file is read as text; imports
// are held against the import table, the only user of node's I/O modules is src/io, files begin with a header comment and stay
// small, and nothing is left open. Prints every violation, not the first alone.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const src = path.dirname(fileURLToPath(import.meta.url));

/** Which folders a folder may import, beside itself, base, telemetry and the limits. Read top to bottom: a Put's way down. */
const imports: Readonly<Record<string, readonly string[]>> = {
  base: [],
  telemetry: ['base'],
  io: ['base', 'http2', 'grpc'],
  config: ['base'],
  proto: ['base'],
  http2: ['base'],
  grpc: ['http2'],
  raft: ['proto'],
  wal: ['io', 'proto'],
  snapshot: ['io', 'proto'],
  backend: ['io', 'proto', 'snapshot'],
  mvcc: ['backend', 'proto'],
  lease: ['backend', 'proto'],
  membership: ['backend', 'proto', 'snapshot'],
  peer: ['raft', 'proto', 'snapshot', 'io', 'config'],
  apply: ['mvcc', 'lease', 'membership', 'proto'],
  server: [
    'raft',
    'wal',
    'snapshot',
    'backend',
    'mvcc',
    'lease',
    'membership',
    'peer',
    'apply',
    'proto',
    'io',
    'config',
  ],
  rpc: ['grpc', 'server', 'apply', 'mvcc', 'backend', 'snapshot', 'proto'],
  admin: ['rpc', 'server', 'proto'],
  client: ['proto'],
  process: ['config', 'io', 'grpc', 'peer', 'membership', 'server', 'rpc', 'admin', 'client'],
  cli: ['client', 'config', 'proto', 'snapshot', 'wal', 'io', 'backend'],
};
/** Pure computation, no I/O: free for all. */
const pureModules = new Set(['node:crypto', 'node:zlib', 'node:util', 'node:path', 'node:buffer', 'node:url']);
const ioFolders = new Set(['io', 'testing', 'cli']);
const linesMax = 600;
/** Free for all, too: bounds. */
const limits = new Set(['limits.ts', 'connection-limits.ts', 'storage-limits.ts', 'cluster-limits.ts']);

interface Source {
  readonly name: string;
  readonly folder: string;
  readonly text: string;
  readonly isTest: boolean;
}

function* walk(directory: string): Generator<string> {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const full = path.join(directory, entry.name);
    if (entry.isDirectory()) yield* walk(full);
    else if (entry.name.endsWith('.ts')) yield full;
  }
}

const sources: Source[] = [...walk(src)].map((full) => {
  const name = path.relative(src, full);
  const folder = name.includes(path.sep) ? name.split(path.sep)[0]! : '';
  const isTest = /\.(test|peer-test|fuzz|bench)\.ts$|-fixture\.ts$/.test(name);
  return { name, folder, text: readFileSync(full, 'utf8'), isTest };
});

function importsOf(source: Source): string[] {
  const statements = /^(?:import|export)\s[^'";]*?from '([^']+)'|^import '([^']+)'|\bimport\('([^']+)'\)/gm;
  return [...source.text.matchAll(statements)].map((match) => match[1] ?? match[2] ?? match[3]!);
}

function report(violations: readonly string[]): void {
  assert.equal(violations.length, 0, `\n${violations.join('\n')}`);
}

test('there is something to check', () => {
  assert.ok(sources.length > 100, `only ${sources.length} files found`);
});

test('imports point down the table', () => {
  const violations: string[] = [];
  for (const source of sources) {
    // A test stands above everything: it may put parts together that may not know each other.
    if (source.folder === '' || source.folder === 'testing' || source.isTest) continue;
    const table = imports[source.folder];
    if (table === undefined) {
      violations.push(`${source.name}: folder ${source.folder} is not in the import table`);
      continue;
    }
    const allowed = new Set([source.folder, 'base', 'telemetry', ...table]);
    for (const specifier of importsOf(source)) {
      if (!specifier.startsWith('.')) continue;
      const target = path.relative(src, path.resolve(src, path.dirname(source.name), specifier));
      const folder = target.includes(path.sep) ? target.split(path.sep)[0]! : '';
      if (folder === '' ? !limits.has(target) : !allowed.has(folder)) {
        violations.push(`${source.name} imports ${target}`);
      }
    }
  }
  report(violations);
});

test('only src/io uses node I/O modules and native packages', () => {
  const violations: string[] = [];
  for (const source of sources) {
    if (source.isTest || ioFolders.has(source.folder) || source.folder === '') continue;
    for (const specifier of importsOf(source)) {
      if (specifier.startsWith('.')) continue;
      const isPure = pureModules.has(specifier);
      const isOwn =
        (source.folder === 'telemetry' && specifier === 'prom-client') ||
        (source.folder === 'config' && specifier === 'yaml') ||
        (source.folder === 'client' && specifier === '@grpc/grpc-js');
      if (!isPure && !isOwn) violations.push(`${source.name} imports ${specifier}`);
    }
  }
  report(violations);
});

test('files have a header, stay small and leave nothing open', () => {
  const violations: string[] = [];
  for (const source of sources) {
    const lines = source.text.split('\n').length;
    if (!source.text.startsWith('//')) violations.push(`${source.name} has no header comment`);
    if (lines > linesMax && !source.isTest) violations.push(`${source.name} has ${lines} lines`);
    if (/export default|\bTODO\b|\bFIXME\b|\bXXX\b/.test(source.text) && source.name !== 'tidy.test.ts') {
      violations.push(`${source.name} has a default export or an open end`);
    }
    if (
      !/^[a-z0-9.-]+$/.test(path.basename(source.name)) ||
      /(^|[-.])(utils?|helpers?|common|manager)[-.]/.test(path.basename(source.name))
    ) {
      violations.push(`${source.name} is not named after one noun in kebab-case`);
    }
  }
  report(violations);
});
