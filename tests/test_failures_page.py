"""The page of failures: each of its rows is a promise, and names the tests that keep it."""

import ast
import re
from functools import cache

from support.paths import TESTS

HERE = TESTS
PAGE = HERE.parent / "docs" / "guide" / "failures.md"
CHARGES = {
    "no",
    "yes",
    "unknown",
    "nothing new",
    "as the run ends",
    "as it tells, else unknown",
    "as it bills",
}

#: By the first cell of a row: `folder/file::test` below `tests/`, without `test_` and `.py`.
PROOFS = {
    "The line, the prompt or a value is wrong": [
        "commands/syntax/cell::a_wrong_line_is_refused_in_one_line_with_a_cure",
        "records/request::bad_requests_are_refused_in_one_line",
        "notebook/magics::the_name_is_bound_whatever_happens",
    ],
    "The provider does not take such a request": [
        "session/session::nothing_is_sent_where_anything_is_wrong",
        "commands/dry_run::a_dry_run_says_why_a_take_is_blocked_and_a_provider_refuses",
    ],
    "A call uses a name of the provider's own (`multi_prompt`, `generate_audio`, `sound`, `webhook_url`)": [
        "commands/syntax/cell::a_wrong_line_is_refused_in_one_line_with_a_cure",
        "session/api::an_estimate_of_something_else_is_refused",
    ],
    "RunComfy's pro is asked for `shot_type: intelligent`": [
        "session/session::nothing_is_sent_where_anything_is_wrong",
        "sandbox/wires::runcomfys_pro_takes_one_shot_type",
    ],
    "The notebook runs in a folder that a scheduler deletes later": [
        "commands/doctor::the_doctor_warns_in_a_staging_folder",
        "session/staging::run_all_at_home_buys_nothing_again",
    ],
    "An entry of `NO_PROXY` cannot be read": [
        "network/proxy::an_entry_of_no_proxy_that_cannot_be_read_is_skipped"
    ],
    "The ledger is busy for a moment": [
        "engine/locked_ledger::a_ledger_that_is_locked_for_a_moment_stops_no_run",
        "ledger/database::no_select_outlives_its_transaction",
    ],
    "A call is made in a process of a pool, or a run or an error is sent to another one": [
        "session/processes::a_pool_of_spawned_processes_submits",
        "session/processes::a_run_is_pickled_as_its_id_and_found_again",
        "session/processes::every_error_says_in_another_process_what_it_says_here",
    ],
    "The ledger is a file on a network drive, and another machine uses it": [
        "ledger/several_hosts::a_file_that_another_machine_uses_is_refused"
    ],
    "A callback is lost, forged, changed on its way, or comes twice or early": [
        "team/callbacks::a_call_that_is_not_signed_by_the_secret_changes_nothing",
        "team/callbacks::the_same_call_again_does_nothing",
        "team/callbacks::a_call_that_comes_before_the_answer_to_the_submit_is_not_missed",
        "team/callbacks::a_call_decides_nothing",
    ],
    "The provider does not know a young run yet": ["providers/variants::a_variant_ends_as_it_says"],
    "The run's status is definite, and its result cannot be read": [
        "providers/variants::a_variant_ends_as_it_says"
    ],
    "The content is refused after the work began, in whatever words and place": [
        "providers/variants::a_variant_ends_as_it_says"
    ],
    "The result has another shape than its pages say, or names pictures first": [
        "providers/variants::a_variant_ends_as_it_says",
        "promises/paid_clip_arrives::further_videos_are_kept_beside_the_clip",
    ],
    "The link is relative, redirected, compressed, a range, or asks for the key": [
        "providers/variants::a_variant_ends_as_it_says",
        "network/links::a_public_https_redirect_leads_on",
    ],
    "A run that had succeeded was written down as failed, by an earlier version": [
        "engine/reuse::a_success_that_was_overwritten_is_healed_by_its_file"
    ],
    "A comment or blank lines stand above `%%kling`": [
        "notebook/magics::habits_do_not_make_another_clip",
    ],
    "`kling.run_sync` is called under uvloop": ["loop::run_sync_works_inside_a_loop_that_cannot_be_patched"],
    "`--json` would write signs that a terminal obeys": [
        "session/api::json_holds_no_sign_that_a_terminal_obeys"
    ],
    "A cost cannot be read in one way": ["providers/variants::a_variant_ends_as_it_says"],
    "A provider is named and has no key": ["config/keys::no_provider_is_better_than_a_wrong_one"],
    "The ledger cannot be used": [
        "ledger/database::a_ledger_that_cannot_be_used_says_why",
        "promises/nothing_lost::nothing_is_sent_when_the_ledger_has_no_room",
    ],
    "A newer version wrote the ledger": ["ledger/database::a_newer_schema_is_refused_and_left_alone"],
    "The media folder is full or cannot be written": [
        "media/folder::a_full_disk_is_found_before_money_moves",
        "media/folder::a_file_in_place_of_the_folder_is_said_in_words",
    ],
    "An old IPython is still loaded after an installation, as in Colab": [
        "notebook/magics::an_old_ipython_that_is_still_loaded_is_said_in_one_line",
    ],
    "A proxy signs the traffic with a certificate that is not known here": [
        "network/proxy::certificates_of_ones_own_are_used",
    ],
    "The server runs the cells, and the page takes no updates "
    "(jupyter-server-documents, jupyter-server-nbmodel)": [
        "notebook/run_by_server::a_cell_waits_and_ends_with_exactly_one_true_card",
        "notebook/run_by_server::the_form_gives_the_cell_and_the_doctor_names_the_extension",
    ],
    "The clip is whole, and not every browser plays it (H.265, 10 bits, 4:4:4)": [
        "views/embed::a_whole_clip_that_not_every_browser_plays_is_offered_as_a_file",
    ],
    "A terminal cannot write the prompt's letters": [
        "cli::letters_that_a_console_cannot_write_are_escaped",
        "notebook/magics::a_terminal_that_cannot_write_a_letter_shows_its_escape",
    ],
    "The process dies before the call is sent": [
        "engine/engine::resuming_never_sends_what_was_not_sent",
        "promises/nothing_lost::a_kill_at_any_step_is_finished_by_another_process",
    ],
    "The provider cannot be reached": [
        "session/session::a_provider_that_cannot_be_reached_charges_nothing",
        "network/failures::refused_is_unsent",
    ],
    "The provider refuses key, credit or request": [
        "providers/contract::a_refused_submit_fails_with_its_reason_and_costs_nothing",
        "providers/contract::a_bad_key_fails_as_auth",
        "engine/reuse::a_failure_that_cost_nothing_is_tried_again",
    ],
    "The provider refuses the content": [
        "providers/contract::a_refused_submit_fails_with_its_reason_and_costs_nothing",
        "engine/reuse::a_moderated_prompt_blocks_until_no_cache",
    ],
    "The provider asks to wait (429)": [
        "providers/contract::a_rate_limit_is_waited_out",
        "providers/variants::a_variant_ends_as_it_says",
    ],
    "The answer does not come, at Runflow": [
        "providers/contract::an_answer_lost_after_acceptance_never_pays_twice",
        "providers/contract::an_ambiguous_answer_without_a_run_is_resent_only_where_absence_is_proved",
        "providers/contract::a_submit_that_stays_unclear_is_lost_after_three_proofs",
    ],
    "The answer does not come, at RunComfy": [
        "providers/contract::an_answer_lost_after_acceptance_never_pays_twice",
        "engine/reuse::a_lost_run_blocks_whatever_is_asked",
        "recovery/resolve::attach_brings_a_lost_run_to_its_end",
        "recovery/resolve::abandon_releases_the_money_and_lets_the_cell_run_once_more",
    ],
    "The process is killed in the middle": [
        "promises/nothing_lost::a_kill_at_any_step_is_finished_by_another_process",
        "session/api::collect_finishes_what_a_killed_process_left",
    ],
    "The ledger breaks after the call was sent": [
        "engine/folder_state::what_the_ledger_cannot_take_is_not_told_as_unsent",
        "engine/engine::an_id_that_the_ledger_cannot_take_is_in_the_folder",
    ],
    "The ledger is an older copy of itself": [
        "engine/folder_state::an_old_ledger_does_not_send_what_its_folder_knows_to_be_sent",
        "engine/folder_state::an_old_ledger_does_not_send_what_its_folder_knows_to_be_lost",
    ],
    "The laptop sleeps in the middle": [
        "promises/nothing_lost::a_machine_that_slept_through_its_lease_sends_nothing",
        "engine/engine::a_laptop_that_slept_does_not_send_what_another_process_sent",
    ],
    "The network fails, the provider stutters": [
        "providers/contract::trouble_while_watching_never_ends_a_run",
        "promises/survives_bad_answers::spoilt_readings_never_end_a_run",
    ],
    "Two kernels with a ledger each share the folder": [
        "promises/two_ledgers::kernels_with_a_ledger_each_pay_once_at_the_same_instant",
        "promises/two_ledgers::a_kernel_that_was_taken_for_dead_sends_nothing_when_it_wakes",
    ],
    "Another process called the run lost while this one was frozen in its submit": [
        "promises/own_answer::an_id_that_comes_late_brings_a_lost_run_back",
        "promises/own_answer::a_refusal_that_comes_late_ends_a_lost_run_without_a_charge",
    ],
    "The ledger is locked by another process": [
        "interrupts::a_locked_ledger_says_what_to_do_and_suggests_no_other_one"
    ],
    "A receipt of the request cannot be read (conflict markers, cut off)": [
        "media/damaged_receipts::a_receipt_that_cannot_be_read_is_not_bought_again"
    ],
    "A picture of a received folder is far larger than the models make": [
        "media/probe::a_picture_that_would_fill_the_memory_is_not_decoded"
    ],
    "You press stop, or Ctrl-C": [
        "interrupts::ctrl_c_held_while_a_cell_submits_locks_nobody_out",
        "notebook/magics::an_interrupt_stops_the_waiting_and_nothing_else",
        "session/api::ctrl_c_ends_the_waiting_and_not_the_run",
    ],
    "The kernel is restarted or killed": [
        "providers/contract::a_new_engine_takes_up_what_the_old_one_left",
        "engine/reuse::the_same_cell_while_it_runs_is_the_same_run",
    ],
    "The run takes longer than we watch": ["providers/contract::the_deadline_detaches_and_resume_finishes"],
    "You cancel too late": [
        "providers/contract::a_cancel_that_comes_too_late_says_so",
        "providers/contract::cancel_is_honest",
        "commands/runs::a_provider_without_cancel_is_named",
    ],
    "The run fails at Runflow": ["providers/contract::a_failed_run_says_why_and_what_is_known_of_its_charge"],
    "The run fails at RunComfy": [
        "providers/contract::a_failed_run_says_why_and_what_is_known_of_its_charge",
        "engine/reuse::a_failure_whose_charge_is_unknown_needs_retry",
    ],
    "The provider no longer knows the run": ["providers/contract::a_run_the_provider_forgot_ends_as_expired"],
    "The key in use is another account's": [
        "engine/reuse::a_run_of_another_account_is_neither_lost_nor_expired"
    ],
    "The download breaks off": [
        "providers/contract::a_bad_download_is_fetched_again_for_free",
        "providers/contract::no_part_file_is_left_behind",
        "media/folder::kill_9_leaves_the_whole_clip_or_none",
    ],
    "The download keeps failing": ["providers/contract::a_clip_that_cannot_be_had_now_stays_on_its_way"],
    "The link has expired": [
        "providers/contract::an_expired_link_is_cured_by_reading_again",
        "promises/nothing_lost::a_link_that_has_expired_is_signed_anew",
    ],
    "The disk is full": [
        "promises/nothing_lost::a_disk_full_in_the_middle_of_a_download_is_no_loss",
        "engine/engine::a_full_disk_at_the_end_is_told_as_paid",
    ],
    "It is whole in the folder, but its end was never written down, and the provider has forgotten it": [
        "engine/folder_state::a_clip_that_is_in_its_folder_is_not_gone"
    ],
    "What came is no video (a page, an error, a picture)": [
        "promises/paid_clip_arrives::a_page_in_place_of_the_file_means_not_yet",
        "providers/variants::a_variant_ends_as_it_says",
    ],
    "The provider says it is done, and names no clip": [
        "promises/paid_clip_arrives::a_success_without_a_clip_is_read_again_then_failed_then_revived",
    ],
    "The provider uses a word for its end that its pages do not have": [
        "providers/variants::a_variant_ends_as_it_says",
        "promises/paid_clip_arrives::an_unknown_word_gives_its_place_away_in_time",
    ],
    "The link leads to a strange or private place": [
        "promises/foreign_input::links_to_strange_places_are_not_followed",
        "network/links::names_that_lead_inside_are_refused_at_connect",
        "network/links::redirect_elsewhere_is_refused",
        "network/download::token_is_never_sent",
    ],
    "The file is larger than a clip can be": ["network/download::size_cap"],
    "The clip's file was changed or deleted": [
        "engine/reuse::a_clip_whose_bytes_changed_is_fetched_again_and_not_bought",
        "media/folder::a_changed_clip_is_not_the_recorded_one",
    ],
    "The clip is gone here and there": [
        "engine/reuse::a_success_stays_one_while_its_clip_is_away_and_its_provider_forgot_it",
        "engine/reuse::a_clip_that_is_gone_for_good_is_bought_again_by_request",
    ],
    "The notebook came without its folder": ["recovery/restore::a_mailed_notebook_is_restored_beside_itself"],
    "The notebook is opened with no kernel, key or trust": [
        "browser/card::a_card_lives_plays_and_outlives_its_kernel"
    ],
    "The page is loaded anew in the middle of a run": ["browser/card::the_strip_comes_back_after_a_reload"],
    "A cap does not hold the cell": [
        "session/budget::the_tightest_cap_wins_and_is_named",
        "session/admission::max_cost_covers_the_whole_cell",
    ],
    "Many notebooks spend at once": ["session/admission::a_cap_holds_in_a_race_of_processes"],
    "Nobody is watching and nobody declared a budget": [
        "session/admission::a_headless_run_needs_a_budget_or_consent"
    ],
    "The price is not known": [
        "session/admission::an_unknown_price_is_refused_unless_allowed",
        "session/admission::a_price_of_the_users_own_is_what_is_held_back",
    ],
    "The provider bills more than its list": [
        "session/admission::billing_above_the_list_is_recorded_and_counts"
    ],
    "One bill is absurd": ["session/admission::one_absurd_bill_does_not_close_a_provider"],
    "An amount is beyond all money": ["session/api::an_amount_beyond_all_money_is_refused_in_words"],
    "RunComfy's managed machine lost its token, and another one is set": [
        "config/keys::on_a_managed_machine_only_the_machines_own_key_counts"
    ],
    "A table of the ledger is gone, or its file is corrupt": [
        "commands/doctor::the_doctor_sees_a_table_that_is_gone",
        "ledger/database::a_corrupt_ledger_says_what_suffices_and_what_is_forgotten",
    ],
    "IPython took a part of the prompt for a pasted one, in an earlier version": [
        "commands/syntax/cell_source::a_clip_bought_under_the_stripped_words_is_shown_and_not_bought_again"
    ],
    "The package's files change under a living kernel with `%autoreload`": [
        "notebook/magics::autoreload_leaves_the_package_alone"
    ],
    "The charge of a failed run is not known": [
        "session/admission::a_charge_nobody_knows_keeps_its_reservation",
        "recovery/resolve::abandon_releases_a_failed_run_whose_charge_is_unknown",
    ],
    "A key stands in a cell, a prompt, a tag or a command": [
        "records/secrets::a_known_key_in_any_text_of_a_call_is_refused",
        "records/secrets::a_known_key_in_a_cell_is_refused_before_it_is_read",
        "records/secrets::a_known_key_in_a_line_command_is_refused",
        "records/secrets::what_looks_like_a_key_is_refused_without_a_key_set",
    ],
    "A key is too short to be one": ["records/secrets::a_few_letters_go_to_no_real_provider"],
    "A key is malformed": ["config/keys::a_malformed_key_is_an_error"],
    "The file of keys can be read by others": [
        "promises/no_secret_gets_out::a_file_of_keys_that_others_can_read_is_refused"
    ],
    "The keyring is locked or slow": [
        "config/keys::a_keyring_that_fails_is_an_error",
        "config/keys::a_key_that_cannot_be_read_stops_the_choice",
    ],
    "The provider repeats the key in an answer": [
        "promises/no_secret_gets_out::no_end_of_a_run_shows_a_secret",
        "records/secrets::an_answer_is_blotted_in_every_spelling",
    ],
    "A cloned project names another server, a key or consent": [
        "promises/foreign_input::a_cloned_project_is_refused_whole",
        "promises/foreign_input::a_cloned_project_neither_consents_nor_raises_a_cap",
    ],
    "A colleague's folder came without the ledger": ["engine/reuse::the_folder_alone_is_enough_to_reuse"],
    "A receipt is spoilt or forged": [
        "media/folder::strangers_do_not_stop_the_others",
        "promises/foreign_input::a_sidecar_names_no_file_elsewhere",
        "engine/reuse::a_stranger_brings_no_money",
    ],
    "A text is meant to run or to fetch something": [
        "promises/no_markup_gets_out::no_notebook_runs_or_fetches_them",
        "promises/no_markup_gets_out::every_piece_of_markup_shows_them_and_runs_none",
    ],
    "A row of the ledger cannot be read": [
        "ledger/rows::listings_skip_it_and_say_so",
        "ledger/rows::what_it_holds_back_still_counts",
        "ledger/rows::asked_for_by_name_it_says_what_is_wrong",
    ],
    "The file's name is taken": ["media/folder::a_name_is_never_given_twice"],
}


def rows():
    """The rows of all tables, cell by cell."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    found = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [cells for cells in found if cells[0] not in {"---", "What goes wrong"}]


@cache
def promises_in(file):
    """The tests of a file, as pytest would find them, without those that `make test` leaves out."""
    path = HERE / file
    tree = ast.parse(path.with_name(f"test_{path.name}.py").read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {
        function.name
        for function in functions
        if not any(
            # Of a test with many cases some may be left to the matrix.
            ast.unparse(one).startswith(("pytest.mark.matrix", "pytest.mark.skip"))
            for one in function.decorator_list
        )
    }


def test_every_row_names_tests_that_exist():
    """A row without a test, or a test that is gone, fails here: the page cannot drift from what is so."""
    told = [cells[0] for cells in rows()]
    assert len(told) == len(set(told)) >= 50
    assert set(told) == set(PROOFS)
    missing = [
        proof
        for proofs in PROOFS.values()
        for proof in proofs
        if f"test_{proof.split('::')[1]}" not in promises_in(proof.split("::")[0])
    ]
    assert missing == []
    assert all(PROOFS.values())


def test_every_row_answers_all_questions():
    """What is charged, what happens, what to do: no cell is empty, and the charge is one of a few words."""
    for cells in rows():
        assert len(cells) == 4, cells
        assert all(cells), cells
        assert cells[1] in CHARGES, cells
