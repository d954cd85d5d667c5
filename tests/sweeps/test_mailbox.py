"""Questions and answers between trials and the driver."""

import asyncio
import subprocess
import sys

from boom_ray.sweeps.mailbox import CLOSED, GONE, Batch, Ended, Mailbox
from boom_ray.sweeps.trials import Answer, Ask


def test_letters_come_in_order_and_once():
    async def talk():
        mailbox = Mailbox()
        letters = [Batch({0: {}}), Ended(0, "finished"), Ended(1, "failed")]
        waiting = asyncio.create_task(mailbox.collect())
        await asyncio.sleep(0)
        await mailbox.post(letters[0])
        assert await waiting == letters[:1]
        for letter in letters[1:]:
            await mailbox.post(letter)
        assert await mailbox.collect() == letters[1:]

    asyncio.run(talk())


def test_each_trial_gets_its_own_answer():
    async def talk():
        mailbox = Mailbox()
        asks = [Ask(number, {"seed": number}, 0) for number in range(3)]
        waiting = [asyncio.create_task(mailbox.ask(ask)) for ask in asks]
        assert await mailbox.collect() == asks
        for number in (2, 0, 1):
            await mailbox.answer(number, Answer(seconds=number))
        assert [(await one).seconds for one in waiting] == [0, 1, 2]
        await mailbox.answer(7, Answer())  # nobody waits

    asyncio.run(talk())


def test_once_closed_nobody_waits():
    async def talk():
        mailbox = Mailbox()
        waiting = asyncio.create_task(mailbox.ask(Ask(0, {}, 0)))
        await asyncio.sleep(0)
        await mailbox.close()
        assert (await waiting).error == CLOSED
        assert (await mailbox.ask(Ask(1, {}, 0))).error == CLOSED

    asyncio.run(talk())


def test_who_asks_again_sends_the_first_who_waits_away():
    """A trial's process has died; its call in the mailbox would else stay for ever."""

    async def talk():
        mailbox = Mailbox()
        ask = Ask(3, {}, 0)
        first, second = asyncio.create_task(mailbox.ask(ask)), asyncio.create_task(mailbox.ask(ask))
        assert (await asyncio.wait_for(first, 5)).error == GONE
        await mailbox.answer(3, Answer(seconds=1))
        assert (await second).seconds == 1
        assert await mailbox.collect() == [ask, ask]

    asyncio.run(talk())


def test_a_trials_process_imports_next_to_nothing():
    code = "import sys, boom_ray.sweeps.mailbox; print(*(name for name in sys.modules if '.' not in name))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"ray", "torch", "mteb", "mlflow", "pydantic", "numpy", "optuna"} & set(loaded)
