"""The seeded bugs: one replacement in one file of `pipeline/`, and the tests that must notice it.

`old` stands once in the file. Each bug is one that a tired person could make and a review could miss: it leaves the
program running, and breaks one promise.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """One seeded bug."""

    name: str
    file: str  # in pipeline/
    old: str
    new: str
    tests: tuple[str, ...]  # node ids, in tests/


HOLES = "mutations/test_holes.py::"

ANSWERS = (
    Mutation(
        "answers are taken in the order they came in",
        "protocol/answer.py",
        """\
    if any(item.index != position for position, item in enumerate(items)):
        items.sort(key=lambda item: item.index)
        if any(""",
        """\
    if sorted(item.index for item in items) != list(range(texts)):
        if any(""",
        ("test_protocol.py::test_the_order_of_the_items_says_nothing",),
    ),
    Mutation(
        "NaN is taken for a number",
        "protocol/answer.py",
        "_decode_answer = msgspec.json.Decoder(Answer).decode\n",
        "_decode_answer = lambda body: msgspec.convert(__import__('json').loads(body), Answer)  # noqa: E731\n",
        ("test_protocol.py::test_a_broken_answer_is_not_believed",),
    ),
    Mutation(
        "the quick reading takes answers in the order they came in",
        "protocol/answer.py",
        "if [item.index for item in answer.data] != list(range(texts)):",
        "if len(answer.data) != texts:",
        ("test_protocol_known.py::test_what_is_known_already_changes_no_answer",),
    ),
    Mutation(
        "the quick reading takes any label that the model has",
        "protocol/answer.py",
        "< len(facts.names) or scores != list(map(getitem, probs, map(class_of.__getitem__, labels))):",
        "< len(facts.names) or not set(facts.names.values()) >= set(labels):",
        ("test_protocol_known.py::test_what_is_known_already_changes_no_answer",),
    ),
    Mutation(
        "quotes go to the wire as they are",
        "escaped.py",
        """.replace(b'"', b'\\\\"')""",
        "",
        ("test_escaped.py::test_any_text_goes_to_the_wire_and_back",),
    ),
    Mutation(
        "a chunk that is cut at once sends a text twice",
        "cutter.py",
        "if len(seen) < len(chunk.texts) + len(texts):",
        "if not seen:",
        ("test_failures.py::test_the_same_text_is_sent_once_where_a_chunk_could_be_cut_at_once",),
    ),
    Mutation(
        "how deep a line may nest is left to the parser",
        "loader/jsonl.py",
        "                if is_too_deep(line):",
        "                if not line:",
        ("test_loader_errors.py::test_how_deep_a_line_may_nest_is_the_same_for_every_reader",),
    ),
    Mutation(
        "what is taken at once may repeat what the chunk has",
        "cutter.py",
        "seen = self._seen | set(texts)\n            if len(seen) < len(chunk.texts) + len(texts):",
        "seen = self._seen | set(texts)\n            if len(set(texts)) < len(texts):",
        ("test_chunks.py::test_however_rows_come_each_gets_the_answer_to_its_text",),
    ),
    Mutation(
        "a Parquet string is taken for UTF-8 unseen",
        "loader/parquet.py",
        "if not (is_ascii or _is_utf8(array)):",
        "if not texts:",
        ("test_loader_parquet.py::test_parquet_strings_that_are_no_utf8_are_not_text",),
    ),
    Mutation(
        "fewer values than classes are taken",
        "protocol/answer.py",
        "item.num_classes != classes or len(probs) != classes or not probs",
        "item.num_classes != classes or not probs",
        (f"{HOLES}test_a_number_of_classes_without_as_many_values_is_not_believed",),
    ),
    Mutation(
        "a label need not be that of the largest value",
        "protocol/answer.py",
        "elif index in names or (label is not None and label in names.values()):",
        "elif index in names:",
        ("test_protocol.py::test_a_broken_answer_is_not_believed",),
    ),
    Mutation(
        "an answer with another number of classes is kept",
        "protocol/answer.py",
        "if facts.num_classes and classes != facts.num_classes:",
        "if facts.num_classes and classes < 1:",
        ("test_protocol.py::test_another_model_is_noticed_and_teaches_nothing[another number of classes]",),
    ),
    Mutation(
        "an answer that names a class anew is kept",
        "protocol/answer.py",
        "if name != known",
        "if not name and name != known",
        ("test_protocol.py::test_another_model_is_noticed_and_teaches_nothing[another name]",),
    ),
    Mutation(
        "an answer may have any size",
        "client.py",
        "                if size > largest:\n                    break\n        if size > largest:",
        "        if size > largest << 40:",
        ("test_client_failures.py::test_an_answer_of_exactly_the_bound_is_read",),
    ),
    Mutation(
        "a redirect carries the key to another host",
        "client.py",
        "allow_redirects=False",
        "allow_redirects=True",
        ("test_client.py::test_a_redirect_is_not_followed",),
    ),
)

ROWS = (
    Mutation(
        "an added error is that of another row",
        "predictions.py",
        "{position + shift: error for",
        "{position: error for",
        ("test_protocol.py::test_adding_predictions_is_appending_their_rows",),
    ),
    Mutation(
        "an added mark of a cut text is that of another row",
        "predictions.py",
        "self.truncated | {position + shift for position in other.truncated}",
        "self.truncated | other.truncated",
        ("test_protocol.py::test_adding_predictions_is_appending_their_rows",),
    ),
    Mutation(
        "an error is spread by text, not by row",
        "predictions.py",
        "{row: self.errors[position] for",
        "{position: self.errors[position] for",
        ("test_protocol.py::test_spreading_gives_each_row_the_prediction_of_its_text",),
    ),
    Mutation(
        "the probabilities are those of the row before",
        "predictions.py",
        "[self.probs[position] if",
        "[self.probs[position - 1] if",
        ("test_protocol.py::test_spreading_gives_each_row_the_prediction_of_its_text",),
    ),
    Mutation(
        "a chunk's last text is shared by those that were seen before",
        "cutter.py",
        "self._positions.append(position)",
        "self._positions.append(len(chunk.texts) - 1)",
        ("test_failures.py::test_the_same_text_is_sent_once",),
    ),
    Mutation(
        "the chunk that is not full is lost",
        "cutter.py",
        '"""The last chunk, if there is one."""\n        if self._chunk is not None:',
        '"""The last chunk, if there is one."""\n        if self._chunk is not None and self._stop is not None:',
        ("test_failures.py::test_the_same_text_is_sent_once",),
    ),
    Mutation(
        "the halves of a chunk change places",
        "batcher.py",
        "return left + await self._classify(texts[middle:], spent, alone=alone)",
        "return await self._classify(texts[middle:], spent, alone=alone) + left",
        ("test_failures.py::test_the_same_text_is_sent_once",),
    ),
    Mutation(
        "the halves of a chunk leave a text out",
        "batcher.py",
        "await self._classify(texts[middle:], spent, alone=alone)",
        "await self._classify(texts[middle + 1 :], spent, alone=alone)",
        ("test_failures.py::test_the_same_text_is_sent_once",),
    ),
    Mutation(
        "texts in memory get their answers in the order of arrival",
        "library/texts.py",
        "for first in sorted(found) for",
        "for first in found for",
        (f"{HOLES}test_texts_in_memory_keep_their_order",),
    ),
)

FAILURES = (
    Mutation(
        "who waits holds a place",
        "endpoints/__init__.py",
        "                    self._give_up_if_due(failed)\n",
        "                    self._give_up_if_due(failed)\n"
        "                    await self._sleep(failed.retry_after or 0)\n",
        (f"{HOLES}test_who_waits_holds_no_place",),
    ),
    Mutation(
        "a request is tried again for ever",
        "retry.py",
        "if failures >= retry.attempts:",
        "if failures > retry.attempts << 20:",
        ("test_retry.py::test_attempts_are_counted",),
    ),
    Mutation(
        "Retry-After is passed over",
        "retry.py",
        " + (retry_after or 0.0)",
        "",
        ("test_failures.py::test_retry_after_is_obeyed",),
    ),
    Mutation(
        "a row is blamed for a sick server",
        "batcher.py",
        "await self._endpoints.is_well(endpoint, outcome)",
        "True",
        (f"{HOLES}test_no_row_is_blamed_for_a_sick_server",),
    ),
    Mutation(
        "a text that broke the server is no suspect in its half",
        "batcher.py",
        "alone = error.broke_server",
        "alone = False",
        ("test_failures.py::test_a_row_that_crashes_the_server_does_so_a_few_times_only",),
    ),
    Mutation(
        "a request is not tried alone after the server broke",
        "batcher.py",
        "                    alone = True\n",
        "                    alone = alone and True\n",
        ("test_failures.py::test_a_row_that_crashes_the_server_does_so_a_few_times_only",),
    ),
    Mutation(
        "a server is given up although it answered in between",
        "endpoints/__init__.py",
        "                self._failing_since = None  # somebody answered: patience starts anew\n",
        "",
        (f"{HOLES}test_patience_starts_anew_with_every_answer",),
    ),
    Mutation(
        "a text is cut and not marked",
        "endpoints/endpoint.py",
        "predictions.truncated = set(range(len(texts)))",
        "predictions.truncated = set()",
        ("test_failures.py::test_too_long_texts_are_cut_only_where_needed",),
    ),
    Mutation(
        "as many failed rows as are allowed are too many",
        "runner/second_pass.py",
        "too_many = sum(failed.values()) > allowed",
        "too_many = sum(failed.values()) >= allowed",
        ("test_failures.py::test_too_long_texts_are_cut_only_where_needed",),
    ),
    Mutation(
        "a row without a text counts as failed",
        "runner/second_pass.py",
        ' if code != "empty"}',
        "}",
        (f"{HOLES}test_rows_without_a_text_are_no_failure",),
    ),
)

CHECKPOINT = (
    Mutation(
        "a flush does not commit",
        "checkpoint/store.py",
        '                self._put(meta)\n                self._db.execute("COMMIT")\n',
        "                self._put(meta)\n",
        ("test_checkpoint.py::test_a_second_reader_sees_what_was_flushed",),
    ),
    Mutation(
        "a commit is not synced",
        "checkpoint/store.py",
        '"PRAGMA synchronous = FULL"',
        '"PRAGMA synchronous = NORMAL"',
        (f"{HOLES}test_a_commit_is_synced",),
    ),
    Mutation(
        "a flush that fails loses its records",
        "checkpoint/store.py",
        "self._waiting, self._waiting_meta = records + self._waiting, meta | self._waiting_meta",
        "self._waiting_meta = meta | self._waiting_meta",
        ("test_checkpoint_damage.py::test_a_full_disk_is_disk_trouble_and_loses_nothing",),
    ),
    Mutation(
        "a flush that fails leaves its transaction open",
        "checkpoint/store.py",
        "                if self._db.in_transaction:\n",
        "                if not self._db.in_transaction:\n",
        ("test_checkpoint_damage.py::test_a_full_disk_is_disk_trouble_and_loses_nothing",),
    ),
    Mutation(
        "a record is added twice",
        "checkpoint/store.py",
        "records, self._waiting = self._waiting, []",
        "records, self._waiting = list(self._waiting), self._waiting",
        ("test_checkpoint.py::test_a_second_reader_sees_what_was_flushed",),
    ),
    Mutation(
        "the last open range is left out",
        "checkpoint/store.py",
        "WHERE next IS NOT stop",
        "WHERE next <> stop",
        ("test_checkpoint.py::test_the_open_rows_are_those_without_a_record",),
    ),
    Mutation(
        "labels change their ids when they are read again",
        "checkpoint/store.py",
        '"SELECT id, name FROM labels"',
        '"SELECT row_number() OVER (ORDER BY name) - 1, name FROM labels ORDER BY name"',
        ("test_checkpoint.py::test_labels_keep_their_ids_over_runs",),
    ),
    Mutation(
        "labels are written by the order of the alphabet",
        "writer/__init__.py",
        "labels = list(checkpoint.label_ids)",
        "labels = sorted(checkpoint.label_ids)",
        ("test_cli.py::test_the_code_of_failed_rows_comes_back",),
    ),
    Mutation(
        "opening failed rows again loses the marks of the others",
        "checkpoint/records.py",
        "[index - start for index in cut if",
        "[index for index in cut if",
        (f"{HOLES}test_rows_beside_a_failed_one_keep_their_marks",),
    ),
    Mutation(
        "opening failed rows again shifts the probabilities of the others",
        "checkpoint/records.py",
        "probs[width * start : width * stop]",
        "probs[: width * (stop - start)]",
        ("test_join_property.py::test_reopening_failed_rows_opens_exactly_those",),
    ),
    Mutation(
        "a run goes on from one row too late",
        "cutter.py",
        "self._chunk or Chunk(self._row, block.place)",
        "self._chunk or Chunk(self._row, block.place._replace(row=block.place.row + 1))",
        ("test_resume.py::test_failed_rows_are_classified_again_and_no_others",),
    ),
    Mutation(
        "a place among regular records is off by their first byte",
        "loader/regular.py",
        "Place(here.row + len(records), here.offset + len(whole),",
        "Place(here.row + len(records), here.offset + len(whole) - 1,",
        ("test_loader_regular.py::test_regular_records_are_read_at_once",),
    ),
    Mutation(
        "a quote within a plain cell is taken for regular",
        "loader/regular.py",
        """[^"\\r\\n%b]*+""",
        """[^\\r\\n%b]*+""",
        ("test_loader_regular.py::test_any_file_reads_as_the_csv_module_reads_it",),
    ),
    Mutation(
        "half a line end ends a regular record",
        "loader/regular.py",
        r"|\r(?=[^\n])",
        r"|\r",
        ("test_loader_regular.py::test_the_bytes_of_all_records_are_those_of_the_file",),
    ),
    Mutation(
        "the same text in another spelling is another text",
        "loader/members.py",
        "            _spell_alike(texts)\n",
        "            texts = list(texts)\n",
        ("test_loader.py::test_a_text_has_one_form_however_it_is_spelled",),
    ),
    Mutation(
        "a JSON line is taken for UTF-8 unseen",
        "loader/members.py",
        " or not is_utf8(",
        " or not bytes(",
        ("test_loader_errors.py",),
    ),
    Mutation(
        "a row's place in a CSV file is that of the row after it",
        "loader/delimited.py",
        "offset += sum(map(len, raw))",
        "offset += sum(map(len, raw)) + (line > 9)",
        ("test_fidelity.py::test_reading_on_from_any_block",),
    ),
    Mutation(
        "a Parquet file is entered at the wrong row of its second batch",
        "loader/parquet.py",
        "row = max(0, row - batch.num_rows)",
        "row = 0",
        (f"{HOLES}test_a_large_row_group_is_entered_at_any_of_its_blocks",),
    ),
)

IDENTITY = (
    Mutation(
        "another text column is the same run",
        "checkpoint/fingerprint.py",
        '{"loader.text_column": loader.text_columns}',
        '{"loader.text_column": None}',
        ("test_checkpoint_identity.py::test_what_changes_answers_is_a_difference",),
    ),
    Mutation(
        "other weights behind one name are the same model",
        "endpoints/endpoint.py",
        '"model.canary": canary.probs,',
        '"model.canary": None,',
        ("test_failures.py::test_two_endpoints_must_serve_one_model",),
    ),
    Mutation(
        "the end of the input does not matter",
        "checkpoint/fingerprint.py",
        "for step in range(SAMPLES)}",
        "for step in range(SAMPLES - 1)}",
        ("test_checkpoint_identity.py::test_a_digest_sees_size_head_middle_and_tail",),
    ),
    Mutation(
        "the model that began the run is not compared",
        "runner/first_pass.py",
        "if other := differences(begun, endpoints.identity):",
        "if other := differences(begun, begun):",
        (f"{HOLES}test_a_run_is_not_finished_by_another_model",),
    ),
    Mutation(
        "two runs may hold one output",
        "checkpoint/lock.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        ("test_cli_files.py::test_another_run_holds_the_output",),
    ),
    Mutation(
        "a file of somebody else is replaced",
        "output/place.py",
        "if there is not None and there not in (made, published) and not config.run.overwrite:",
        "if there is not None and made and there not in (made, published) and not config.run.overwrite:",
        ("test_cli_files.py::test_an_output_that_is_not_ours_stays",),
    ),
)

OUTPUT = (
    Mutation(
        "an output appears before it is known as ours",
        "runner/second_pass.py",
        """\
        checkpoint.put(published=record.output_digest, identity=run.identity, total_rows=run.total)
        draft.publish(tick)
""",
        """\
        draft.publish(tick)
        checkpoint.put(published=record.output_digest, identity=run.identity, total_rows=run.total)
""",
        (
            f"{HOLES}test_killed_right_after_the_rename_the_same_command_finishes",
            "test_places_runs.py::test_killed_right_after_the_upload_the_same_command_finishes",
        ),
    ),
    Mutation(
        "the digest of the output is not stored",
        "runner/second_pass.py",
        "published=record.output_digest",
        "published=None",
        (f"{HOLES}test_killed_right_after_the_rename_the_same_command_finishes",),
    ),
    Mutation(
        "an output is renamed before it is on the disk",
        "writer/draft.py",
        "            sync_file(self.path)\n",
        "            self.path.stat()\n",
        (f"{HOLES}test_an_output_is_synced_before_and_after_its_rename",),
    ),
    Mutation(
        "the rename may be lost in a power cut",
        "writer/draft.py",
        "            sync_file(self.path.parent)\n",
        "            self.path.parent.stat()\n",
        (f"{HOLES}test_an_output_is_synced_before_and_after_its_rename",),
    ),
    Mutation(
        "the checkpoint goes although rows failed",
        "runner/second_pass.py",
        "if record.is_whole and not record.failed:",
        "if record.is_whole:",
        ("test_cli.py::test_the_code_of_failed_rows_comes_back",),
    ),
    Mutation(
        "the checkpoint goes although rows are left",
        "runner/second_pass.py",
        "if record.is_whole and not record.failed:",
        "if not record.failed:",
        ("test_cli.py::test_a_few_rows_first",),
    ),
    Mutation(
        "the output has a row more than was asked for",
        "writer/__init__.py",
        "left = rows\n",
        "left = rows + 1\n",
        ("test_writer.py::test_only_the_first_rows",),
    ),
    Mutation(
        "an error moves to another row where two records meet",
        "writer/columns.py",
        "{row + start: error for part",
        "{row: error for part",
        ("test_join_property.py::test_any_split_any_order_any_crash_give_the_same_output",),
    ),
    Mutation(
        "a mark moves to another row where two records meet",
        "writer/columns.py",
        "frozenset(row + start for part",
        "frozenset(row for part",
        (f"{HOLES}test_marks_stay_with_their_rows_where_records_meet",),
    ),
    Mutation(
        "every CSV record ends in LF",
        "writer/delimited.py",
        "added.encode(self._encoding) + record[len(body_bytes) :]",
        'added.encode(self._encoding) + b"\\n"',
        ("test_writer.py::test_csv_records_keep_their_bytes",),
    ),
    Mutation(
        "an empty JSON object gets a comma",
        "writer/jsonl.py",
        'comma = b"" if line[:brace].rstrip().endswith(b"{") else b","',
        'comma = b","',
        ("test_writer.py::test_json_lines_keep_their_bytes",),
    ),
    Mutation(
        "Parquet loses its metadata",
        "writer/parquet.py",
        "schema = schema.append(field)",
        "schema = schema.append(field).remove_metadata()",
        ("test_writer_parquet.py::test_parquet_keeps_schema_types_and_metadata",),
    ),
    Mutation(
        "a server may repeat our key in a row's error",
        "protocol/refusal.py",
        'body = body.replace(secret.encode(), b"***")',
        "body = body.strip()",
        ("test_cli.py::test_secrets_appear_nowhere",),
    ),
    Mutation(
        "the record keeps the values of headers",
        "config/sections.py",
        'dict.fromkeys(config.server.headers, "***")',
        "dict(config.server.headers)",
        ("test_config_values.py::test_no_secret_is_in_what_is_shown",),
    ),
    Mutation(
        "a password in a URL is shown",
        "config/urls.py",
        ":***@{host}",
        ":{user.partition(':')[2]}@{host}",
        ("test_config_values.py::test_no_secret_is_in_what_is_shown",),
    ),
)

TOLD = (
    Mutation(
        "a run that failed tells nobody",
        "runner/reported.py",
        "await report_outcome(config, environment, outcome, progress)",
        "progress.end()",
        ("test_outcome.py::test_a_bug_is_told_without_its_words",),
    ),
    Mutation(
        "a bug's words are told",
        "outcome/__init__.py",
        "a bug: {type(error).__name__} in",
        "a bug: {error!r} in",
        ("test_outcome.py::test_a_bug_is_told_without_its_words",),
    ),
    Mutation(
        "a bad night forgets the last success",
        "outcome/metrics.py",
        "else _last_success(path, job)",
        "else 0.0",
        ("test_metrics.py::test_the_last_success_survives_a_bad_night",),
    ),
    Mutation(
        "rows that failed are a success",
        "outcome/metrics.py",
        "ended if outcome.exit_code == 0 else",
        "ended if outcome.exit_code in (0, 3) else",
        ("test_metrics.py::test_the_last_success_survives_a_bad_night",),
    ),
    Mutation(
        "metrics replace whatever is there",
        "outcome/metrics.py",
        'in (FIRST_BYTES, b"")',
        "is not None",
        ("test_outcome.py::test_metrics_never_replace_rows",),
    ),
    Mutation(
        "each label is a series, however many there are",
        "outcome/metrics.py",
        "if len(bounded) >= MOST_LABELS and name not in bounded:",
        "if not name:",
        ("test_metrics.py::test_a_thousand_labels_are_a_hundred_series",),
    ),
    Mutation(
        "the url to notify is shown",
        "config/sections.py",
        "origin(config.run.notify_url)",
        "config.run.notify_url",
        ("test_outcome.py::test_a_notification_that_fails",),
    ),
    Mutation(
        "a signal while telling changes the exit code",
        "runner/reported.py",
        """\
    with suppress(asyncio.CancelledError):
        await report_outcome(config, environment, record, progress)""",
        """\
    await report_outcome(config, environment, record, progress)""",
        ("test_outcome.py::test_a_signal_while_telling_changes_nothing",),
    ),
    Mutation(
        "who stops a run waits for a slow receiver",
        "outcome/__init__.py",
        "if outcome.exit_code > SIGNALLED",
        "if outcome.exit_code < 0",
        ("test_outcome.py::test_a_signal_is_told_too",),
    ),
    Mutation(
        "a frame's column is replaced",
        "library/frames.py",
        "if name in frame.columns:",
        "if name is None:",
        ("test_library_frames.py::test_a_column_of_a_class_that_is_there_is_refused",),
    ),
    Mutation(
        "the stop button of a notebook stops nothing",
        "loops.py",
        "loop.call_soon_threadsafe(task.cancel)",
        "loop.call_soon_threadsafe(task.done)",
        ("test_library.py::test_the_stop_button_stops",),
    ),
)

SCHEDULE = (
    Mutation(
        "a percent sign reaches cron bare",
        "schedule/cron.py",
        r'_command(night).replace("%", r"\%")',
        "_command(night)",
        ("test_schedule_cron.py::test_a_night_that_succeeds",),
    ),
    Mutation(
        "every code is tried again",
        "schedule/cron.py",
        "[ $code -eq 75 ]",
        "[ $code -ne 0 ]",
        ("test_schedule_cron.py::test_other_codes_end_the_night",),
    ),
    Mutation(
        "a retry runs into the next night",
        "schedule/cron.py",
        "sleep {RETRY_AFTER_S} && {night.still()} ||",
        "sleep {RETRY_AFTER_S} ||",
        ("test_schedule_cron.py::test_75_is_not_tried_again_after_the_night",),
    ),
    Mutation(
        "the lock is not inherited by the run",
        "schedule/cron.py",
        "{shlex.join(night.command)}; code",
        "{shlex.join(night.command)} 9>&-; code",
        ("test_schedule_cron.py::test_the_lock_is_held_as_long_as_the_run_lives",),
    ),
    Mutation(
        "the env file sets variables that the run does not see",
        "schedule/cron.py",
        "set -a; [ ! -r",
        "[ ! -r",
        ("test_schedule_cron.py::test_a_night_that_succeeds",),
    ),
    Mutation(
        "a night over midnight is over at once",
        "schedule/night.py",
        'both = "&&" if self.at < self.until else "||"',
        'both = "&&"',
        ("test_schedule.py::test_the_shell_knows_when_the_night_is_over",),
    ),
    Mutation(
        "a dollar in a path is a variable to systemd",
        "schedule/systemd.py",
        """.replace('"', '\\\\"').replace("%", "%%").replace("$", "$$") + '"'""",
        """.replace('"', '\\\\"').replace("%", "%%") + '"'""",
        ("test_schedule_systemd.py::test_dollars_are_not_expanded",),
    ),
    Mutation(
        "the first start by day is refused",
        "schedule/systemd.py",
        "[ ! -e {flag} ] ||",
        "",
        ("test_schedule_systemd.py::test_a_retry_after_the_night_is_the_last",),
    ),
    Mutation(
        "the pod is on the clock of Greenwich",
        "schedule/manifest.py",
        "                  value: {zone}",
        '                  value: "UTC"',
        ("test_schedule_kubernetes.py::test_two_nights_never_run_at_once",),
    ),
    Mutation(
        "all codes count as 75",
        "schedule/manifest.py",
        "operator: NotIn",
        "operator: In",
        ("test_schedule_kubernetes.py::test_75_is_tried_again_and_nothing_else",),
    ),
    Mutation(
        "a line separator in the config breaks the YAML",
        "schedule/manifest.py",
        "if all(map(_is_plain, lines)):",
        "if lines:",
        ("test_schedule_kubernetes.py::test_any_text_goes_through_yaml_unchanged",),
    ),
    Mutation(
        "a header's value goes into the ConfigMap",
        "schedule/kubernetes.py",
        'if not value.startswith("env:"):',
        "if not value:",
        ("test_schedule_kubernetes.py::test_a_secret_in_the_config_is_refused",),
    ),
)


REUSE = (
    Mutation(
        "a stored answer is found under any context",
        "reuse/records.py",
        "person=context",
        "person=context[:0]",
        ("test_reuse.py::test_other_settings_have_other_answers",),
    ),
    Mutation(
        "half of a key is enough",
        "reuse/store.py",
        """(read["check"] == halves[positions, 1]) & (read["class"] >= 0)""",
        """(read["class"] >= 0)""",
        ("test_reuse.py::test_a_half_of_a_key_is_not_enough",),
    ),
    Mutation(
        "the answer to a cut text is kept for the whole one",
        "reuse/records.py",
        "probs is None or position in predictions.truncated",
        "probs is None",
        ("test_reuse.py::test_only_sound_answers_are_kept",),
    ),
    Mutation(
        "a tie is kept for the first of its classes",
        "reuse/records.py",
        """return index if label == f"LABEL_{index}" else NO_ANSWER""",
        "return index",
        ("test_reuse.py::test_only_sound_answers_are_kept",),
    ),
    Mutation(
        "a setting that changes answers is no part of the context",
        "reuse/store.py",
        '("input", "loader.", ',
        '("input", "loader.", "request.", ',
        ("test_reuse.py::test_other_settings_have_other_answers",),
    ),
    Mutation(
        "any context will do",
        "reuse/store.py",
        "and not differences(json.loads(kept), now)",
        "",
        ("test_reuse.py::test_another_model_never_gets_an_answer",),
    ),
    Mutation(
        "answers without probabilities serve a run that needs them",
        "reuse/store.py",
        "if (classes or not keep_probs) and",
        "if",
        ("test_reuse.py::test_answers_without_probabilities_serve_no_run_that_needs_them",),
    ),
    Mutation(
        "a model that drifts has the context that suits it last",
        "reuse/store.py",
        "(suited or [new])[0]",
        "(suited or [new])[-1]",
        ("test_reuse.py::test_a_model_that_drifts_keeps_to_the_first_that_suits",),
    ),
    Mutation(
        "answers in use go with those that are not",
        "reuse/store.py",
        'if table == "older" and known.any():',
        'if table == "older" and not known.any():',
        ("test_reuse.py::test_answers_in_use_stay",),
    ),
    Mutation(
        "the newer answers may take all that is allowed",
        "reuse/store.py",
        "self._pages // 2 - self._pages // SLICES or",
        "self._pages or",
        ("test_reuse.py::test_the_file_keeps_to_its_bound",),
    ),
    Mutation(
        "what waits for a file in use is lost",
        "reuse/store.py",
        "                self._wait(halves.tobytes(), whole)\n",
        "                pass\n",
        ("test_reuse_damage.py::test_a_file_that_another_keeps_costs_no_answer",),
    ),
    Mutation(
        "what waits at the end is lost",
        "reuse/store.py",
        "            if keep:\n",
        "            if not keep:\n",
        ("test_reuse.py::test_what_is_remembered_is_found_by_a_later_run",),
    ),
    Mutation(
        "another program's database is filled with answers",
        "reuse/database.py",
        "(application or tables)",
        "application",
        ("test_reuse_damage.py::test_what_is_not_ours_is_refused_and_left_as_it_is",),
    ),
    Mutation(
        "another version's file is used",
        "reuse/database.py",
        "version != VERSION",
        "version < VERSION",
        ("test_reuse_damage.py::test_what_is_not_ours_is_refused_and_left_as_it_is",),
    ),
    Mutation(
        "an answer is kept under the key of another text",
        "cutter.py",
        "            if key is not None:\n                chunk.keys.append(key)\n",
        "        if key is not None:\n            chunk.keys.append(key)\n",
        ("test_reuse_chunks.py::test_each_row_gets_what_belongs_to_it",),
    ),
    Mutation(
        "a known answer goes to another row",
        "cutter.py",
        "position if position >= -1 else after - position",
        "position if position >= -1 else len(self.texts)",
        ("test_reuse_chunks.py::test_each_row_gets_what_belongs_to_it",),
    ),
    Mutation(
        "known rows are taken at once with those that are sent",
        "cutter.py",
        "labels[at : at + len(texts)].count(None) < len(texts):",
        "labels[at : at + len(texts)].count(None) < 0:",
        ("test_reuse_chunks.py::test_each_row_gets_what_belongs_to_it",),
    ),
    Mutation(
        "a damaged context is taken for another's",
        "reuse/store.py",
        "if any(key != _key_of(identity, classes)",
        "if any(key != key or classes != classes",
        ("test_reuse_damage.py::test_damage_to_a_row_is_refused_or_does_no_harm",),
    ),
    Mutation(
        "known rows count as if they might be sent",
        "cutter.py",
        "rows - known >= self._sizes.rows * ROWS_PER_TEXT",
        "rows >= self._sizes.rows * ROWS_PER_TEXT",
        ("test_reuse_chunks.py::test_known_rows_do_not_count_as_texts_of_a_request",),
    ),
    Mutation(
        "a class without a name is asked for with all of its texts",
        "runner/reusing.py",
        "        if unnamed:\n",
        "        if not unnamed:\n",
        ("test_reuse_run.py::test_the_third_time_nothing_is_sent",),
    ),
    Mutation(
        "a file that fails ends the run",
        "runner/reusing.py",
        "            self._give_up(error)\n            return None\n",
        "            raise\n",
        ("test_reuse_run.py::test_a_file_that_fails_costs_no_row",),
    ),
    Mutation(
        "reused rows are a sign that the server is well",
        "batcher.py",
        "if self._progress.rows_labelled == self._progress.rows_reused:",
        "if not self._progress.rows_labelled:",
        ("test_reuse_run.py::test_a_server_that_refuses_all_that_is_new_stops_the_run",),
    ),
)


PLACES = (
    Mutation(
        "half an object appears when an upload fails",
        "places/store.py",
        "                _never_close(stream)\n",
        "                del stream\n",
        ("test_places.py::test_an_upload_that_fails_leaves_what_stood_there",),
    ),
    Mutation(
        "an object is compressed once more, by its ending",
        "places/store.py",
        "open_output_stream(path, compression=None)",
        "open_output_stream(path)",
        ("test_places_runs.py::test_from_store_to_store_is_as_from_disk_to_disk",),
    ),
    Mutation(
        "all is paid for before the store says that it takes nothing",
        "runner/opening.py",
        "            place.prove_writable()\n",
        "            pass\n",
        ("test_places_runs.py::test_missing_permission_is_said_before_anything_is_paid_for",),
    ),
    Mutation(
        "the credentials of a store are in the record",
        "config/sections.py",
        "return place and mask_place(storable(place))",
        "return place and storable(place)",
        ("test_places_runs.py::test_credentials_in_a_uri_appear_nowhere",),
    ),
    Mutation(
        "other credentials are another output",
        "places/state.py",
        "os.fsencode(output.key)",
        "os.fsencode(f'{output.key}{id(output.store)}')",
        ("test_places.py::test_each_output_has_a_state_of_its_own",),
    ),
    Mutation(
        "a lock that nobody else can see is held",
        "checkpoint/lock.py",
        "while not self._is_seen():",
        "while not self.path:",
        ("test_places.py::test_a_lock_that_has_gone_with_its_directory_holds_nothing",),
    ),
    Mutation(
        "what came through a pipe is resumed with what comes through the next",
        "output/place.py",
        "if begun is None or was_piped(begun):",
        "if begun is None:",
        ("test_pipes.py::test_an_interrupted_run_from_a_pipe_starts_over",),
    ),
    Mutation(
        "the copy of standard input stays",
        "places/state.py",
        "        shutil.rmtree(path, ignore_errors=True)\n        os.close(held)\n",
        "        os.close(held)\n",
        ("test_pipes.py::test_what_came_through_a_pipe_goes_with_the_run",),
    ),
    Mutation(
        "the last rows before a failure are not written to the pipe",
        "runner/streaming.py",
        "            await asyncio.wait([written])\n",
        "            written.cancel()\n",
        ("test_pipes.py::test_a_run_that_fails_writes_what_is_finished",),
    ),
    Mutation(
        "a run goes on when nobody reads its rows any more",
        "writer/front.py",
        "                raise ReaderGone from None\n",
        "                return\n",
        ("test_pipes.py::test_a_reader_that_has_seen_enough_ends_the_run",),
    ),
    Mutation(
        "a reader that does not read holds a signal up",
        "writer/front.py",
        "            if not select.select([], [STDOUT], [], LOOK_S)[1]:\n                continue\n",
        "",
        ("test_pipes.py::test_a_reader_that_does_not_read_holds_nobody_up",),
    ),
)

LOAD = (
    Mutation(
        "each refusal of one volley slows down once more",
        "limiter.py",
        "        if self.is_fixed or sent_at <= self._refused_at:\n            return",
        "        if self.is_fixed:\n            return",
        ("test_limiter.py::test_sixty_four_refusals_at_once_are_one_reason_to_slow_down",),
    ),
    Mutation(
        "what was refused is tried again at once",
        "limiter.py",
        "            self._refused = self.limit\n",
        "            pass\n",
        ("test_limiter.py::test_a_refused_level_is_not_tried_again_soon",),
    ),
    Mutation(
        "a level that is too high is never left downwards",
        "limiter.py",
        "if good == lowest > 1 and",
        "if good == lowest > CEILING and",
        ("test_limiter.py::test_where_more_in_flight_is_worse_the_best_level_is_found_in_200_requests",),
    ),
    Mutation(
        "a server whose answers take longer is given no more",
        "limiter.py",
        "            if (higher := min(highest + step, self._refused - 1, CEILING)) > highest:\n",
        "            if (higher := min(highest + step, self._refused - 1, CEILING)) > highest > CEILING:\n",
        ("test_limiter.py::test_a_server_that_batches_is_given_enough_to_batch",),
    ),
    Mutation(
        "of levels that are as good as each other the highest is kept",
        "limiter.py",
        "        good = min(level for",
        "        good = max(level for",
        ("test_limiter.py::test_no_more_are_in_flight_than_help",),
    ),
    Mutation(
        "answers tell of a level they were not sent at",
        "limiter.py",
        "        if self._answers or sent_at >= self._set_at:",
        "        if self._answers or sent_at <= now:",
        ("test_limiter.py::test_answers_tell_of_the_level_they_were_sent_at",),
    ),
    Mutation(
        "requests of a size that failed are sent again",
        "limiter.py",
        "self.rows, self._most, self._may_grow = AUTO_ROWS, AUTO_ROWS, False",
        "self.rows = self._most = AUTO_ROWS",
        ("test_limiter.py::test_chunks_grow_no_more_after_a_large_one_failed",),
    ),
    Mutation(
        "a number of texts that was given grows",
        "limiter.py",
        'self._may_grow = rows == "auto"',
        "self._may_grow = True",
        ("test_limiter.py::test_a_given_number_of_texts_does_not_grow",),
    ),
    Mutation(
        "neighbours are not tried again",
        "limiter.py",
        "        self._rest -= 1\n",
        "",
        ("test_limiter.py::test_auto_climbs_again_when_the_server_grows",),
    ),
    Mutation(
        "a limit that nobody uses is raised",
        "limiter.py",
        " or self._most_in_flight < self.limit:",
        ":",
        ("test_limiter.py::test_what_is_not_used_is_not_raised",),
    ),
)

MANY = (
    Mutation(
        "an answer goes to the file that is being read",
        "runner/first_pass.py",
        "file: Context = chunk.owner",
        "file: Context = next(reversed(self._going))",
        ("test_many.py::test_every_output_is_that_of_a_run_of_its_file_alone",),
    ),
    Mutation(
        "a small output appears before its record",
        "runner/second_pass.py",
        "        note.rename()\n        output.rename()\n",
        "        output.rename()\n        note.rename()\n",
        ("test_many.py::test_a_small_new_file_gets_no_checkpoint_and_its_record_comes_first",),
    ),
    Mutation(
        "small outputs are not synced",
        "runner/second_pass.py",
        "        output.sync()\n",
        "",
        (f"{HOLES}test_small_outputs_are_synced_before_and_after_their_rename",),
    ),
    Mutation(
        "a file that waits to be written has no checkpoint",
        "runner/many.py",
        "                file.settle_meanwhile()\n",
        "                pass\n",
        ("test_many_interrupted.py::test_what_is_answered_but_not_written_yet_is_kept",),
    ),
    Mutation(
        "the names of another model's classes go into a checkpoint",
        "runner/first_pass.py",
        "        if not file.is_adopted:\n",
        "        if not self._endpoints or 'model.names' not in file.identity:\n",
        ("test_many.py::test_another_model_continues_no_file_of_the_old_one",),
    ),
    Mutation(
        "a bad file stops the others",
        "runner/many.py",
        "            elif isinstance(opened, OF_ONE_FILE):\n",
        "            elif isinstance(opened, str):\n",
        ("test_many.py::test_a_bad_file_is_named_and_does_not_stop_the_others",),
    ),
    Mutation(
        "failed rows count for more than a bad file",
        "runner/total.py",
        "(1, 130, 143, 75, 4, 2, 3, 0)",
        "(1, 130, 143, 75, 4, 3, 2, 0)",
        ("test_many.py::test_of_several_codes_the_first_that_matters_is_told",),
    ),
    Mutation(
        "two nights share the files out between them",
        "runner/many.py",
        "                locks.enter_context(lock_of_directory(folder, self._config.run.state_dir))\n",
        "                lock_of_directory(folder, self._config.run.state_dir)\n",
        ("test_many.py::test_two_runs_never_write_into_one_directory",),
    ),
    Mutation(
        "outputs of former nights are read",
        "inputs.py",
        "if not path.startswith(inside)]",
        "if path != inside]",
        ("test_inputs.py::test_an_output_inside_the_input_is_not_read",),
    ),
    Mutation(
        "the last of two inputs takes the output",
        "inputs.py",
        "if first is not pair and first.source.key != pair.source.key:",
        "if first is not pair and first.source.key == pair.source.key:",
        ("test_inputs.py::test_two_files_for_one_output_are_both_named",),
    ),
    Mutation(
        "the last day of a range is left out",
        "config/dates.py",
        "range((end - start).days + 1)",
        "range((end - start).days or 1)",
        ("test_dates.py",),
    ),
)

MUTATIONS = (
    *ANSWERS,
    *ROWS,
    *FAILURES,
    *LOAD,
    *CHECKPOINT,
    *IDENTITY,
    *OUTPUT,
    *PLACES,
    *TOLD,
    *SCHEDULE,
    *REUSE,
    *MANY,
)
