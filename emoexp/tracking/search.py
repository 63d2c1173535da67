"""Finds run folders by an MLflow filter."""

from pathlib import Path

from emoexp.tracking import client as store_client
from emoexp.tracking.settings import Settings, locate


def search(settings: Settings, text: str) -> list[Path]:
    """The folders of the runs that an MLflow filter finds, such as params.imbalance = 'sampler'; sweeps are left out.

    Raises:
        ValueError: tracking=none, a filter that MLflow cannot read, or runs that no longer lie where they were made.
    """
    store = locate(settings)
    if store is None:
        raise ValueError("filter= asks MLflow, and tracking=none has none: choose tracking=mlflow or server")
    client, experiment = store_client.connect(settings, store)
    from mlflow.exceptions import MlflowException

    tags_of_runs, token = [], None
    while True:
        try:
            page = client.search_runs([experiment], text, max_results=1000, page_token=token)
        except MlflowException as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"filter={text!r} is not one that MLflow understands: {reason}") from error
        tags_of_runs += [run.data.tags for run in page if run.data.tags.get("kind") != "sweep"]
        token = page.token
        if not token:
            break
    folders = [Path(tags["emoexp.path"]) for tags in tags_of_runs if "emoexp.path" in tags]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise ValueError(f"filter= found runs whose folders are gone: {', '.join(missing[:5])}")
    return folders
