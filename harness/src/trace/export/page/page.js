'use strict';
// Zooms and moves the time line, and shows the steps of a wait. Times are nanoseconds, as in the attributes data-b and data-e.
(() => {
  const svg = document.getElementById('line');
  if (!svg) return;
  const LEFT = 90, WIDTH = 1000, PLOT = WIDTH - LEFT, LEAST = 100;
  const whole = { from: +svg.dataset.from, span: +svg.dataset.span };
  let view = { ...whole };
  const bars = [...svg.querySelectorAll('rect[data-b]')];
  const names = [...svg.querySelectorAll('text[data-b]')];
  const ticks = [...svg.querySelectorAll('#axis text')];
  const zoomed = [...svg.querySelectorAll('.zoom')];
  const x = time => LEFT + (time - view.from) / view.span * PLOT;

  // With as many digits as tell a time from the next one, which comes so much later.
  const instant = (time, step) => {
    const units = [['ns', 1], ['µs', 1e3], ['ms', 1e6], ['s', 1e9]];
    const [unit, size] = units.findLast(it => time >= it[1]) ?? units[0];
    let digits = 0;
    while (digits < 9 && size / 10 ** digits > Math.max(step, 1)) digits++;
    return (time / size).toFixed(digits) + ' ' + unit;
  };

  const draw = () => {
    for (const bar of bars) {
      const from = x(+bar.dataset.b), to = x(+bar.dataset.e);
      const isOut = to < LEFT || from > WIDTH;
      bar.style.display = isOut ? 'none' : '';
      if (isOut) continue;
      const begin = Math.max(from, LEFT - 2);
      bar.setAttribute('x', begin.toFixed(2));
      bar.setAttribute('width', Math.max(Math.min(to, WIDTH + 2) - begin, 0.8).toFixed(2));
    }
    for (const name of names) {
      const from = Math.max(x(+name.dataset.b), LEFT), to = Math.min(x(+name.dataset.e), WIDTH);
      name.setAttribute('x', (from + 3).toFixed(1));
      name.setAttribute('visibility', to - from > +name.dataset.room ? 'visible' : 'hidden');
    }
    const scale = whole.span / view.span;
    const shift = LEFT - LEFT * scale - (view.from - whole.from) / view.span * PLOT;
    for (const path of zoomed) path.setAttribute('transform', `translate(${shift} 0) scale(${scale} 1)`);
    const step = view.span / (ticks.length - 1);
    ticks.forEach((tick, at) => { tick.textContent = instant(view.from + step * at, step); });
  };

  let due = false;
  const show = (from, span) => {
    view.span = Math.min(Math.max(span, LEAST), whole.span);
    view.from = Math.min(Math.max(from, whole.from), whole.from + whole.span - view.span);
    if (due) return;
    due = true;
    requestAnimationFrame(() => { due = false; draw(); });
  };
  const zoom = (factor, share) => show(view.from + view.span * share * (1 - factor), view.span * factor);
  const move = share => show(view.from + view.span * share, view.span);
  const share = event => {
    const box = svg.getBoundingClientRect();
    return Math.min(Math.max(((event.clientX - box.left) / box.width * WIDTH - LEFT) / PLOT, 0), 1);
  };

  svg.addEventListener('wheel', event => {
    event.preventDefault();
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) move(event.deltaX / 800);
    else zoom(event.deltaY > 0 ? 1.25 : 0.8, share(event));
  }, { passive: false });

  // One pointer moves, two zoom; a pointer that did not move is a click.
  const down = new Map();
  let travelled = 0;
  svg.addEventListener('pointerdown', event => {
    down.set(event.pointerId, share(event));
    if (down.size === 1) travelled = 0;
  });
  svg.addEventListener('pointermove', event => {
    if (!down.has(event.pointerId)) return;
    const before = down.get(event.pointerId), now = share(event);
    if (down.size === 1) {
      travelled += Math.abs(now - before);
      if (travelled > 0.004 && !svg.hasPointerCapture(event.pointerId)) svg.setPointerCapture(event.pointerId);
      move(before - now);
    } else {
      const [other] = [...down].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      const apart = Math.abs(before - other), since = Math.abs(now - other);
      travelled = 1;
      if (apart > 0.001 && since > 0.001) zoom(apart / since, other);
    }
    down.set(event.pointerId, now);
  });
  for (const end of ['pointerup', 'pointercancel', 'pointerleave']) {
    svg.addEventListener(end, event => down.delete(event.pointerId));
  }

  svg.tabIndex = 0;
  svg.addEventListener('keydown', event => {
    const keys = {
      '+': () => zoom(0.8, 0.5), '=': () => zoom(0.8, 0.5), '-': () => zoom(1.25, 0.5), '0': () => show(whole.from, whole.span),
      ArrowLeft: () => move(-0.1), ArrowRight: () => move(0.1), Home: () => move(-1e9), End: () => move(1e9),
      Enter: () => step(0), n: () => step(1), p: () => step(-1),
    };
    if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key]();
  });

  const panel = document.getElementById('wait');
  const { waits, steps } = JSON.parse(document.getElementById('steps').textContent);
  let chosen = null;
  const choose = bar => {
    chosen?.classList.remove('chosen');
    chosen = bar;
    bar.classList.add('chosen');
    panel.replaceChildren();
    const add = (tag, text) => panel.appendChild(Object.assign(document.createElement(tag), { textContent: text }));
    add('b', bar.querySelector('title').textContent);
    const numbers = waits[+bar.dataset.w];
    add('pre', numbers ? numbers.map(step => `step ${step}  ${steps[step] ?? ''}`).join('\n') : 'its steps are not on this page');
    panel.hidden = false;
  };
  const inOrder = [...bars].sort((a, b) => a.dataset.b - b.dataset.b);
  const step = by => choose(inOrder[Math.min(Math.max(inOrder.indexOf(chosen) + by, 0), inOrder.length - 1)]);
  svg.addEventListener('click', event => {
    const bar = event.target.closest('rect[data-w]');
    if (bar && travelled <= 0.004) choose(bar);
  });

  document.getElementById('whole').addEventListener('click', () => show(whole.from, whole.span));
  document.querySelectorAll('.script').forEach(element => { element.hidden = false; });
})();
