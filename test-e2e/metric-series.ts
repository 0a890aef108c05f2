// What a scrape of /metrics showed, as one map that tests compare: series by name and sorted labels.

import type { ParsedFamily } from '../src/testing/exposition-parser.ts';

/** By name and sorted labels; of a histogram the count alone. */
export function seriesOf(families: ReadonlyMap<string, ParsedFamily>): Map<string, number> {
  const series = new Map<string, number>();
  for (const { type, samples } of families.values()) {
    for (const { name, labels, value } of samples) {
      if (type === 'histogram' && !name.endsWith('_count')) continue;
      const texts = Object.keys(labels)
        .sort()
        .map((label) => `${label}="${labels[label]}"`);
      series.set(texts.length === 0 ? name : `${name}{${texts.join(',')}}`, value);
    }
  }
  return series;
}
