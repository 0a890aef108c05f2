// Reads Prometheus' text format 0.0.4 back into families, strictly: for tests of /metrics.

export interface ParsedSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}
export interface ParsedFamily {
  readonly name: string;
  readonly help: string;
  readonly type: string;
  readonly samples: ParsedSample[];
}

/** Throws on a line that the format does not allow, a family twice, or a sample outside its family. */
export function parseExposition(text: string): Map<string, ParsedFamily> {
  const families = new Map<string, ParsedFamily>();
  let help = '';
  let current: ParsedFamily | null = null;
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const comment = /^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.*)$/.exec(line);
    if (comment?.[1] === 'HELP') {
      help = comment[3]!;
      continue;
    }
    if (comment?.[1] === 'TYPE') {
      const name = comment[2]!;
      if (families.has(name)) throw new Error(`family twice: ${name}`);
      current = { name, help, type: comment[3]!, samples: [] };
      families.set(name, current);
      continue;
    }
    if (current === null) throw new Error(`sample before a family: ${line}`);
    current.samples.push(parseSample(line, current.name));
  }
  return families;
}

function parseSample(line: string, family: string): ParsedSample {
  const match = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
  if (match === null) throw new Error(`not a sample: ${line}`);
  const [, name = '', labelText = '', valueText = ''] = match;
  if (!['', '_bucket', '_sum', '_count'].some((suffix) => name === family + suffix))
    throw new Error(`not of ${family}: ${line}`);
  const labels: Record<string, string> = {};
  let rest = labelText;
  while (rest !== '') {
    const label = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/.exec(rest);
    if (label === null) throw new Error(`not a label: ${rest}`);
    labels[label[1]!] = label[2]!.replace(/\\(.)/g, (_, char: string) => (char === 'n' ? '\n' : char));
    rest = rest.slice(label[0].length);
  }
  const value =
    valueText === '+Inf'
      ? Number.POSITIVE_INFINITY
      : valueText === '-Inf'
        ? Number.NEGATIVE_INFINITY
        : Number(valueText);
  if (Number.isNaN(value) && valueText !== 'NaN' && valueText !== 'Nan') throw new Error(`not a number: ${line}`);
  return { name, labels, value };
}
