/** Times as Python's strftime writes them in the C locale. */
const days = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const months = [
  'January',
  'February',
  'March',
  'April',
  'May',
  'June',
  'July',
  'August',
  'September',
  'October',
  'November',
  'December',
];

/** In local time. Directives that are not known stay as they are. */
export function formatTime(format: string, time: Date): string {
  const pad = (value: number, width = 2): string => String(value).padStart(width, '0');
  const hour = time.getHours() % 12 || 12;
  const dayOfYear = Math.round(
    (Date.UTC(time.getFullYear(), time.getMonth(), time.getDate()) - Date.UTC(time.getFullYear(), 0, 0)) / 864e5,
  );
  const fields: Readonly<Record<string, string>> = {
    a: days[time.getDay()]!.slice(0, 3),
    A: days[time.getDay()]!,
    b: months[time.getMonth()]!.slice(0, 3),
    B: months[time.getMonth()]!,
    d: pad(time.getDate()),
    e: String(time.getDate()).padStart(2, ' '),
    f: pad(time.getMilliseconds() * 1000, 6),
    H: pad(time.getHours()),
    I: pad(hour),
    j: pad(dayOfYear, 3),
    m: pad(time.getMonth() + 1),
    M: pad(time.getMinutes()),
    p: time.getHours() < 12 ? 'AM' : 'PM',
    S: pad(time.getSeconds()),
    u: String(time.getDay() || 7),
    w: String(time.getDay()),
    y: pad(time.getFullYear() % 100),
    Y: String(time.getFullYear()),
    Z: '',
    z: '',
    '%': '%',
  };
  const composed: Readonly<Record<string, string>> = {
    D: '%m/%d/%y',
    F: '%Y-%m-%d',
    R: '%H:%M',
    T: '%H:%M:%S',
    c: '%a %b %e %H:%M:%S %Y',
    x: '%m/%d/%y',
    X: '%H:%M:%S',
    h: '%b',
  };
  return format
    .replace(/%([DFRTcxXh])/g, (_, letter: string) => composed[letter]!)
    .replace(/%(-?)([a-zA-Z%])/g, (whole, dash: string, letter: string) => {
      const field = fields[letter];
      if (field === undefined) return whole;
      return dash ? field.replace(/^[0 ]+(?=.)/, '') : field;
    });
}
